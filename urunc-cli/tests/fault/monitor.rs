//! What takes the monitor's place: this very binary, executed with a tender's command line. It attaches to its TAP device,
//! as a tender does, and then does nothing.
#![allow(unsafe_code, reason = "rustix has no TUNSETIFF")]

use std::fs::File;

/// The TAP device of a tender's command line (`--net:NAME=DEVICE`); the outer `None` means that it is no tender's.
pub(crate) fn asked_for() -> Option<Option<String>> {
    let arguments: Vec<String> = std::env::args().collect();
    arguments.iter().find(|argument| argument.starts_with("--mem="))?;
    let device = arguments.iter().find_map(|argument| argument.strip_prefix("--net:")?.split_once('='));
    Some(device.map(|(_, device)| device.to_owned()))
}

/// Attaches to `tap`, and waits to be killed.
pub(crate) fn run(tap: Option<&str>) -> ! {
    let _tun = tap.map(attach);
    loop {
        std::thread::park();
    }
}

fn attach(name: &str) -> File {
    let tun = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    // SAFETY: the structure consists of integers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_TAP | libc::IFF_NO_PI).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&tun);
    // SAFETY: `fd` is open, and `request` a live structure of the type that the request takes.
    let result = unsafe { libc::ioctl(fd, libc::TUNSETIFF, &raw mut request) };
    assert_eq!(result, 0, "{name}: {}", std::io::Error::last_os_error());
    tun
}
