// Messages between two ranks: torch's send and recv, with tags and from anybody.
#pragma once

#include <roceccl.h>

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "work.h"

namespace rccl_torch {

// The messages of one process group.
//
// Each (peer, direction) is a *lane*: a communicator of the two ranks, so that lanes wait neither for one another nor for
// collectives. A message is two of the library's: a header, and the elements. The receiver asks for a header as long as somebody
// wants a message on the lane; the header says for whom the elements are: a receive with this tag, the earliest, or nobody yet,
// when they wait in memory of their own.
//
// What is called when a header or elements have come runs inside the library: it makes the next calls, notes ends, and
// drops nothing that is torch's.
class Messages : public std::enable_shared_from_this<Messages> {
 public:
  // `world` outlives this.
  Messages(rcclComm_t world, int rank, int size);
  ~Messages();

  void send(const c10::intrusive_ptr<Work>& work, const at::Tensor& tensor, int peer, int64_t tag);
  // `deadline` of the work is kept here.
  void recv(const c10::intrusive_ptr<Work>& work, const at::Tensor& tensor, int peer, int64_t tag);
  void recv_any(const c10::intrusive_ptr<Work>& work, const at::Tensor& tensor, int64_t tag);

  // Fails what is under way, here and at the peers.
  void abort(const char* why);
  // Leaves; no other call comes after it. `wait`: until messages that were sent have been taken. Returns what a handler of a
  // signal raised meanwhile: then it waited no longer.
  std::exception_ptr close(bool wait);

 private:
  struct Header {
    int64_t tag;
    uint64_t count;
    int32_t type;
    int32_t reserved;
  };
  // Somebody who wants a message. `received_` keeps the work until it has ended.
  struct Receive {
    Work* work;
    void* memory;
    Elements elements;
    size_t count;
    int64_t tag;
    uint64_t number;
  };
  // A message that nobody wants yet.
  struct Arrived {
    Header header;
    std::unique_ptr<char[]> memory;
  };
  // What comes from one peer.
  struct Lane {
    Messages* messages;
    int peer;
    // In the communicator of the two.
    int peer_there;
    rcclComm_t comm = nullptr;
    rcclStream_t stream = nullptr;
    bool asking = false;
    Header header = {};
    std::deque<Receive> wanted;
    std::deque<Arrived> arrived;
    // Whose elements are on their way: a receive's, or nobody's yet.
    std::unique_ptr<Receive> into;
    std::unique_ptr<Arrived> aside;
    // Whether no message will come any more, and why.
    bool broken = false;
    rcclResult_t result = rcclSuccess;
    std::string words;
  };
  // What goes to one peer.
  struct Outgoing {
    int peer_there;
    rcclComm_t comm = nullptr;
    std::mutex order;
  };

  const rcclComm_t world_;
  const int rank_, size_;
  std::mutex making_;
  std::map<int, std::unique_ptr<Outgoing>> outgoing_;
  std::map<int, std::unique_ptr<Lane>> lanes_;
  const std::shared_ptr<UnderWay> sent_ = std::make_shared<UnderWay>();
  const std::shared_ptr<UnderWay> received_ = std::make_shared<UnderWay>();

  std::mutex mutex_;
  uint64_t receives_ = 0;
  std::deque<Receive> wanted_of_any_;
  // When the deadlines are looked at next.
  Clock::time_point look_ = Clock::time_point::max();
  std::atomic<bool> closed_ = false;

  void meet(int peer, const char* call);
  Lane& lane(int peer, const char* call);
  void ask(Lane& lane);
  void header_came(Lane& lane, rcclResult_t result, const char* words);
  void elements_came(Lane& lane, rcclResult_t result, const char* words);
  bool wants(const Lane& lane) const;
  void fail(Lane& lane, rcclResult_t result, const char* words);
  void fail_all(const std::exception_ptr& exception);
  const Lane* none_can_come() const;
  bool deliver(Lane& lane, Receive& receive);
  void end(const Receive& receive, int source, const std::exception_ptr& exception);
  void await_silence(Lane& lane);
  void keep_deadline(Clock::time_point deadline);
  void expire();
};

} // namespace rccl_torch
