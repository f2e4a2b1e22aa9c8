//! Any bytes as what a monitor answers.
#![no_main]

use std::{io::Write, net::Shutdown, os::unix::net::UnixStream, time::Duration};

use libfuzzer_sys::fuzz_target;
use urunc_vmm::{Control, Protocol, control::watch};

fuzz_target!(|bytes: &[u8]| {
    let _ = watch(bytes);
    for protocol in [Protocol::Qmp, Protocol::Firecracker, Protocol::CloudHypervisor] {
        let Ok((ours, mut theirs)) = UnixStream::pair() else { return };
        // More than a socket holds would wait for a reader.
        let _ = theirs.write_all(&bytes[..bytes.len().min(64 << 10)]);
        let _ = theirs.shutdown(Shutdown::Write);
        if let Ok(mut control) = Control::open(ours, protocol, Duration::from_secs(1)) {
            let _ = control.info();
            let _ = control.pause();
        }
    }
});
