//! A network namespace with an interface, for measurements: it lives as long as a process in it.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};

const SCRIPT: &str = "ip link add eth0 type veth peer name far && ip addr add 10.9.0.2/24 dev eth0 && ip link set eth0 up && \
                      ip link set far up && ip route add default via 10.9.0.1 && echo ready && exec cat";

pub(crate) struct Namespace {
    holder: Child,
}

impl Namespace {
    /// Makes one, by unshare(1) and ip(8). Needs root.
    pub(crate) fn make() -> io::Result<Self> {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = holder.stdout.take();
        let namespace = Self { holder };
        let mut line = String::new();
        if let Some(output) = output {
            BufReader::new(output).read_line(&mut line)?;
        }
        if line.trim() == "ready" {
            Ok(namespace)
        } else {
            Err(io::Error::other("no network namespace with an interface can be made; is iproute2 there?"))
        }
    }

    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.id())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
