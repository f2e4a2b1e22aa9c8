//! Attaches a TAP device to the interface of a network namespace, as a runtime does before it starts a virtual
//! machine, and cleans up. Try it, as root, in a namespace of its own:
//!
//! ```sh
//! ip netns add demo && ip -n demo link add eth0 type veth peer name far && ip -n demo link set eth0 up
//! cargo run --example netns_attach /run/netns/demo; ip netns del demo
//! ```
use std::error::Error;
use std::path::Path;

use urunc_netns::{Handover, Mode, NetNs, Owner, Tap, attach, discover, plan, release};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: netns_attach /run/netns/NAME")?;
    let owner = Owner::new("example", Path::new("/run/example"));
    let namespace = NetNs::open(&path)?;

    let found = namespace.run(discover)??.ok_or("this namespace has no interface")?;
    let plan = plan(&found, &owner, Mode::Dynamic, Handover::Descriptor)?;
    let record = serde_json::to_string_pretty(&plan.attachment)?; // write this down first …
    eprintln!("the guest gets {}", serde_json::to_string_pretty(&plan.guest)?);

    let tap = namespace.run(|here| attach(here, &plan.attachment))??; // … then act
    if let Tap::Descriptor(fd) = &tap {
        eprintln!("a virtual machine can have {} as its descriptor {fd:?}", plan.attachment.tap);
    }

    drop(tap); // the virtual machine ends, and the device with it; the rest is in the record
    let done = release(Some(Path::new(&path)), &serde_json::from_str(&record)?)?;
    eprintln!("{done:?}");
    Ok(())
}
