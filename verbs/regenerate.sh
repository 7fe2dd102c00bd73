#!/usr/bin/env bash
# Writes src/sys/bindings.rs anew from infiniband/verbs.h. Nobody needs this to build: the file is committed. It is for
# a developer who wants a function or a type that is not there yet.
#
#   cargo install --locked bindgen-cli --version 0.72.1
#   apt-get install libibverbs-dev libclang-dev          (Debian 12: rdma-core 44, clang 14)
#   verbs/regenerate.sh
#
# Generate from the oldest rdma-core that is to be supported: structures grow at their ends, and what is known here is
# what the library may be told about. A function that is added needs a line in src/sys/loading.rs too, where its version
# is written; a test there says so.
set -euo pipefail
cd "$(dirname "$0")"
header=${1:-/usr/include/infiniband/verbs.h}

functions='_?ibv_(get_device_list|free_device_list|get_device_name|get_device_guid|open_device|close_device'
functions+='|query_device|query_port|query_gid_table|query_pkey|get_async_event|ack_async_event|alloc_pd|dealloc_pd'
functions+='|reg_mr|reg_mr_iova2|reg_dmabuf_mr|dereg_mr|create_comp_channel|destroy_comp_channel|create_cq|destroy_cq'
functions+='|get_cq_event|ack_cq_events|create_qp|modify_qp|query_qp|destroy_qp|query_ece|set_ece|fork_init'
functions+='|is_fork_initialized)'

# Reached from here: verbs_context, whose first operation is called and whose size says which operations there are; and
# flags, which the header passes as plain numbers, so that no function's signature names their types.
types='verbs_context|ibv_(access_flags|send_flags|wc_flags|qp_attr_mask|gid_type|wr_opcode|wc)'

# Only pointed to, by operations of verbs_context that are not called: their insides would be 2,000 lines more.
opaque='ib_uverbs_.*|ibv_(flow|srq|wq|rwq|counter|dm|td|xrcd|values|parent|tm_|odp|rss|tso|rx_hash|packet_pacing)\w*'
opaque+='|ibv_(alloc_dm|mw|mw_bind|ops_wr|cq_ex|cq_init_attr_ex|modify_cq|moderate_cq|poll_cq|qp_init_attr_ex)\w*'
opaque+='|ibv_(qp_open|qp_rate_limit|read_counters|query_device_ex|device_attr_ex|pci_atomic|cq_moderation)\w*'

# Embedded in these, and of another size on every architecture: libc's types are used instead of the header's, and the
# generated assertions, which are of the machine that runs this, hold there only (sys/mod.rs has those of aarch64).
of_pthread='ibv_context|ibv_cq|ibv_qp|verbs_context'

# libclang comes without the compiler's own headers (stddef.h …) unless clang is installed too; gcc's serve.
bindgen "$header" \
    --allowlist-function "$functions" --allowlist-type "$types" --opaque-type "$opaque" \
    --blocklist-type 'pthread_.*|__pthread.*|__atomic.*|timespec|__time_t|__syscall.*' \
    --dynamic-loading Functions --default-enum-style newtype \
    --bitfield-enum 'ibv_(access_flags|send_flags|wc_flags|qp_attr_mask)' --with-derive-default \
    --no-doc-comments --rust-target 1.89 --rust-edition 2024 --wrap-unsafe-ops --use-core \
    --formatter rustfmt --rustfmt-configuration-file "$PWD/../rustfmt.toml" \
    --raw-line "//! Types and functions of infiniband/verbs.h of rdma-core $(dpkg-query -f '${Version}' -W libibverbs-dev)." \
    --raw-line '//! Written by verbs/regenerate.sh; not to be edited. The header is used under its BSD licence (OpenIB.org).' \
    --raw-line 'use libc::{pthread_cond_t, pthread_mutex_t};' \
    -- "-I$(gcc -print-file-name=include)" |
    # The library is ours, not libloading's: it finds symbols by their version.
    sed 's/::libloading::/super::loading::/g' |
    awk -v structs="^($of_pthread)\$" '
        # The attribute before an assertion, and its opening line, are held back until the line that names the structure.
        /^#\[allow\(clippy::unnecessary_operation/ { held = $0; next }
        held && /^const _: \(\) = \{/ { held = held "\n" $0; next }
        held { name = $4; gsub(/[^A-Za-z_0-9]/, "", name); sub(/\].*/, "", name)
               if (match($0, /"Size of [A-Za-z_0-9]+"/)) name = substr($0, RSTART + 9, RLENGTH - 10)
               if (name ~ structs) print "#[cfg(target_arch = \"x86_64\")]"
               print held; held = "" }
        { print }
    ' >src/sys/bindings.rs.new
mv src/sys/bindings.rs.new src/sys/bindings.rs
rustfmt --edition 2024 src/sys/bindings.rs # once more, because names have become shorter
