//! A network namespace for one test, with a TAP device in it.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    process::Command,
    thread,
};

use rustix::{
    ioctl::{self, Updater, opcode},
    thread::UnshareFlags,
};

/// Runs a test on a thread of its own in a network namespace of its own. What the test starts is there too.
pub(crate) fn in_namespace<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let run = scope.spawn(|| {
            // SAFETY: this thread shares nothing that depends on its network namespace.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
            test()
        });
        run.join().unwrap()
    })
}

/// Runs `ip` with words separated by spaces, and returns what it prints.
pub(crate) fn ip(words: &str) -> String {
    let output = Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Makes a persistent TAP device that is up.
pub(crate) fn make_tap(name: &str) {
    ip(&format!("tuntap add dev {name} mode tap vnet_hdr"));
    ip(&format!("link set {name} mtu 1400 up"));
    ip(&format!("addr add 10.0.0.1/24 dev {name}"));
}

/// Opens a TAP device.
pub(crate) fn open_tap(name: &str) -> OwnedFd {
    const TUNSETIFF: ioctl::Opcode = opcode::write::<i32>(b'T', 202);
    // IFF_TAP, IFF_NO_PI, IFF_VNET_HDR (linux/if_tun.h), in a `struct ifreq` of 40 bytes.
    const FLAGS: u16 = 0x0002 | 0x1000 | 0x4000;
    let mut request = [0_u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..18].copy_from_slice(&FLAGS.to_ne_bytes());
    let file = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    // SAFETY: the opcode takes a `struct ifreq`, which this is, and writes within it.
    let attach = unsafe { Updater::<TUNSETIFF, [u8; 40]>::new(&mut request) };
    // SAFETY: as above; the file is the TUN device.
    unsafe { ioctl::ioctl(file.as_fd(), attach) }.unwrap();
    file.into()
}
