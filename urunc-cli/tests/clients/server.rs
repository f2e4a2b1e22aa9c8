//! A Linux guest that serves TCP: the stock kernel with its network drivers, and a busybox that greets whoever calls.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use crate::containerd::{eventually, qemu};
use crate::image::Image;
use crate::linux;
use crate::scene::stock_kernel;
use crate::world::World;

pub(crate) const PORT: u16 = 5000;
/// What it prints when it serves.
pub(crate) const SERVES: &str = "guest: serving";
/// Stock Linux does not boot under every nested KVM.
pub(crate) const CONFIG: &str = "[runtime]\nkvm = \"off\"\n";

const GREETING: &str = "hello over tcp";
/// `ip=` is what the runtime told it.
const SCRIPT: &str = r#"
IFS=: read -r address _ gateway mask _ <<end
$(/bin/busybox tr ' ' '\n' </proc/cmdline | /bin/busybox sed -n 's/^ip=//p')
end
/bin/busybox ifconfig eth0 "$address" netmask "$mask" up
/bin/busybox route add default gw "$gateway"
/bin/busybox nc -ll -p 5000 -e /greet &
say serving
# Nobody minds the power button.
while :; do /bin/busybox sleep 3600; done
"#;
const GREET: &[u8] = b"#!/bin/busybox sh\n/bin/busybox echo hello over tcp\n";

/// The image; its initrd is written into `dir`.
pub(crate) fn image(dir: &Path) -> Image {
    let initrd = dir.join("initrd");
    fs::write(&initrd, linux::initrd_with(linux::NETWORK, &[("greet", GREET)], SCRIPT)).unwrap();
    Image {
        name: "server",
        files: vec![(stock_kernel(), "boot/kernel"), (initrd, "boot/initrd")],
        command: &["/init"],
        kind: "linux",
        more: &[("initrd", "/boot/initrd")],
        ..qemu()
    }
}

/// Fails unless the guest greets us at an address of the world.
pub(crate) fn assert_greets(world: &World, address: &str, port: u16) {
    let greeting = || {
        let mut stream = world.connect(address, port).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text.trim().to_owned())
    };
    assert!(eventually(|| greeting().as_deref() == Some(GREETING)), "{address}:{port}\n{}", world.log());
}
