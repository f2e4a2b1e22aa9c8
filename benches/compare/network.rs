//! What attaching a guest to a container's network costs, by the library that urunc uses: a TAP device, two qdiscs, two filters.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use urunc_netns::{Handover, Mode, NetNs, Owner, attach, discover, plan, release};

use crate::bench::Bench;
use crate::error::{BenchError, Context, Result};
use crate::report::{Table, ms};
use crate::sys;

pub(crate) const TITLE: &str = "Network";

/// Attaches and detaches so many times, in a namespace made for it.
pub(crate) fn measure(bench: &mut Bench, rounds: usize) -> Result<Table> {
    let namespace = Namespace::make()?;
    let path = format!("/proc/{}/ns/net", namespace.holder.id());
    let owner = Owner::new("bench", Path::new("/run/bench"));
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| BenchError::Attach(error);
    let (mut discovering, mut attaching, mut detaching) = (Vec::new(), Vec::new(), Vec::new());
    let open = NetNs::open(&path).map_err(|error| failed(error.into()))?;
    for round in 0..=rounds {
        let begin = sys::now();
        let found = open
            .run(discover)
            .map_err(|error| failed(error.into()))?
            .map_err(|error| failed(error.into()))?
            .ok_or_else(|| BenchError::Unexpected("the namespace's interface was not found".to_owned()))?;
        let plan = plan(&found, &owner, Mode::Dynamic, Handover::Descriptor)
            .map_err(|error| failed(error.into()))?;
        let discovered = sys::now();
        let tap = open
            .run(|here| attach(here, &plan.attachment))
            .map_err(|error| failed(error.into()))?
            .map_err(|error| failed(error.into()))?;
        let attached = sys::now();
        drop(tap);
        let dropped = sys::now();
        release(Some(Path::new(&path)), &plan.attachment).map_err(|error| failed(error.into()))?;
        // The first round loads kernel modules.
        if round > 0 {
            discovering.push(ms(discovered.saturating_sub(begin)));
            attaching.push(ms(attached.saturating_sub(discovered)));
            detaching.push(ms(sys::now().saturating_sub(dropped)));
        }
    }
    bench.say(&format!("  {rounds} attachments"));
    let mut table = Table::new(TITLE, ["urunc"]);
    table.note("Wall time of the library's calls, the thread that enters the namespace included, in a namespace with one veth interface.");
    table.row("discover and plan", "ms", [discovering]);
    table.row("attach", "ms", [attaching]);
    table.row("release after the monitor's end", "ms", [detaching]);
    Ok(table)
}

/// A network namespace with an interface, which lives as long as a process in it.
struct Namespace {
    holder: Child,
}

impl Namespace {
    fn make() -> Result<Self> {
        const SCRIPT: &str = "ip link add eth0 type veth peer name far && ip addr add 10.9.0.2/24 dev eth0 && ip link set eth0 up && \
                              ip link set far up && ip route add default via 10.9.0.1 && echo ready && exec cat";
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .to("run unshare")?;
        let mut line = String::new();
        if let Some(output) = holder.stdout.take() {
            std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line)
                .to("read from unshare")?;
        }
        let namespace = Self { holder };
        if line.trim() == "ready" {
            return Ok(namespace);
        }
        Err(BenchError::Unexpected(
            "cannot make a network namespace with an interface; is iproute2 there?".to_owned(),
        ))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
