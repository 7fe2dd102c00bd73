//! `rccl explain CODE`: what an error means, what causes it, what to do.

use std::process::ExitCode;

/// Explain an error code: what it means, its usual causes, what to do.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  rccl explain RCCL-2001
  rccl explain 2001
  rccl explain                      list all codes")]
pub struct Options {
    /// The code, with or without RCCL- in front; without one all are listed
    code: Option<String>,
}

pub fn main(options: &Options) -> ExitCode {
    let Some(code) = &options.code else {
        let lines = PAGES.iter().map(|page| format!("{}  {}\n", page.code, page.title));
        return crate::print(&lines.collect::<String>());
    };
    match find(code) {
        Some(page) => crate::print(&format!("{}: {}\n\n{}\n", page.code, page.title, page.text)),
        None => crate::complain(format!("{code} is no code; `rccl explain` lists them")),
    }
}

fn find(code: &str) -> Option<&'static Page> {
    let number = code.to_ascii_uppercase();
    let number = number.strip_prefix("RCCL-").unwrap_or(&number);
    PAGES.iter().find(|page| page.code.strip_prefix("RCCL-") == Some(number))
}

struct Page {
    code: &'static str,
    title: &'static str,
    text: &'static str,
}

static PAGES: [Page; 11] = [
    Page {
        code: "RCCL-1001",
        title: "an argument that can never be right",
        text: "\
A function was called with values that no other rank's call could make right: a root or rank beyond the size, buffers
that overlap, lengths that do not fit. Nothing was sent, and the communicator is as good as before: correct the call and
go on. The other ranks are not told; if they made the matching call, they wait in it until their deadline.",
    },
    Page {
        code: "RCCL-1002",
        title: "a setting's value cannot be used",
        text: "\
The value of an RCCL_ variable, of a line in the configuration file, or of a launcher's variable (RANK, SLURM_PROCID) is
not one that is understood; the message says what is. `rccl env` shows all settings with their values and where each was
found.",
    },
    Page {
        code: "RCCL-1003",
        title: "the job could not be joined",
        text: "\
The ranks did not all meet before the deadline (RCCL_INIT_TIMEOUT), or the meeting refused this process.
Causes:
  - a rank was never started, or died before it joined: the message names the missing ones; look at their output
  - nobody listens: rank 0 is late, or RCCL_COMM_ID / MASTER_ADDR:MASTER_PORT is not an address of rank 0's host
  - a firewall between the hosts: RCCL_PORT_RANGE confines the ports that are used
  - two processes with the same rank, or different ideas of the size
  - another key: all ranks need the same RCCL_KEY_FILE content and job
  - another version of rccl whose wire number differs: `rccl --version` prints it
RCCL_DEBUG=INFO shows who started each rank and where it tries to meet.",
    },
    Page {
        code: "RCCL-1004",
        title: "the operating system refused something",
        text: "\
A resource of this process or host was not to be had: file descriptors, memory, locked memory, a port. The message has
the system's answer and the limit to raise. No other rank is to blame.",
    },
    Page {
        code: "RCCL-1005",
        title: "a communicator was used after fork",
        text: "\
A child process inherits the memory of its parent, but not its threads, and rccl's sockets and shared memory belong to
the parent. Create the communicator after the fork, or start children with spawn/exec (in Python:
multiprocessing.set_start_method(\"spawn\")). The parent's communicator is not harmed.",
    },
    Page {
        code: "RCCL-1006",
        title: "a communicator was used after finish",
        text: "\
Communicator::finish leaves the communicator for all handles of this process: clones, and what other threads hold. The
other ranks may be gone, so nothing can be called on it any more. Call finish once, after the last call; dropping the
last handle does the same.",
    },
    Page {
        code: "RCCL-2001",
        title: "ranks made different calls",
        text: "\
At the same point of the program at least two ranks called different collectives, or the same one with another type,
count, operator or root. The message lists what each called. No data was combined, and the communicator is broken on all
ranks. Causes:
  - a branch that only some ranks take around a collective (`if rank == 0`)
  - data-dependent sizes: a last batch that is smaller on one rank
  - threads that share a communicator and whose order differs between ranks: give each its own",
    },
    Page {
        code: "RCCL-2002",
        title: "a process ended",
        text: "\
The named process ended, was killed, or was cut off, and the others needed it. Every rank reports the same first cause;
look at the output of the named process, on the named host. An exit without a word is often the kernel's out-of-memory
killer: `dmesg | grep -i oom` there. A process that lives but said nothing for RCCL_SILENCE_FATAL (stopped, swapping, in
a debugger) counts as ended, too.",
    },
    Page {
        code: "RCCL-2003",
        title: "a call did not end in time",
        text: "\
A call lasted longer than its deadline (RCCL_TIMEOUT, or the one that was passed). The message names the ranks that have
not entered the call, and what each of them did last. Where all have entered, the network is the suspect. A rank that is
merely slow, say loading data or writing a checkpoint, needs a longer deadline.",
    },
    Page {
        code: "RCCL-2004",
        title: "a rank gave up on purpose",
        text: "\
The named rank called abort, with the reason that is printed; in Python also an exception that nobody caught, or Ctrl-C.
The cause is there, not here.",
    },
    Page {
        code: "RCCL-2005",
        title: "a link between two living ranks broke",
        text: "\
Both processes are alive, but the connection between them is not: a cable, a switch, a firewall that forgets idle
connections, an interface that lost its address. The message names transport, both ranks and what was seen.
RCCL_TRANSPORT and RCCL_SOCKET_IFNAME choose another way.",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_however_they_are_written() {
        for page in &PAGES {
            assert!(std::ptr::eq(find(page.code).unwrap(), page));
            assert!(page.text.lines().all(|line| line.len() <= 120), "{}", page.code);
        }
        assert_eq!(find("2001").unwrap().code, "RCCL-2001");
        assert_eq!(find("rccl-2001").unwrap().code, "RCCL-2001");
        assert!(find("9999").is_none());
    }

    #[test]
    fn every_code_of_the_library_has_a_page() {
        // Codes are made in one place only; its source is the list.
        let source = include_str!("../../rccl/src/error.rs");
        let codes: Vec<&str> = source.split('"').filter(|text| text.starts_with("RCCL-")).collect();
        assert_eq!(codes.len(), PAGES.len());
        assert!(codes.iter().all(|code| find(code).is_some()), "{codes:?}");
    }
}
