//! What a guest feels: how fast its console is, and how far the network behind the TAP redirect is. Under urunc and without.
//!
//! With solo5-spt only: its guest's output is one `write(2)`, and its network one TAP device, so that what is seen is not the monitor.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::bench::Bench;
use crate::error::{BenchError, Context, Result};
use crate::life::{Output, pid_of};
use crate::report::Table;
use crate::sys;
use crate::workload::in_path;

pub(crate) const TITLE: &str = "What a guest feels";

/// Mebibytes that the guest prints.
const PRINTED: u32 = 100;
const PINGS: u32 = 300;
/// Enough to last for some tenths of a second.
const FLOOD: u32 = 20_000;
/// Bytes in an echo request that almost fills a frame.
const FRAME: u32 = 1400;
/// The pod's address, which a guest takes over.
const ADDRESS: &str = "10.9.0.2";

/// Measures so many times; nothing if solo5-spt is not there.
pub(crate) fn measure(bench: &mut Bench, rounds: usize) -> Result<Option<Table>> {
    let Some(monitor) = in_path("solo5-spt") else {
        bench.skipped.push("what a guest feels: solo5-spt is not installed".to_owned());
        return Ok(None);
    };
    let urunc = bench.tools.urunc.clone();
    let kernel = bench.workload.unikernel.join("rootfs/boot/kernel");
    let mut bare = Vec::new();
    let mut ours = Vec::new();
    for round in 0..=rounds {
        let words = ["--mem=256", "--", kernel.to_str().unwrap_or_default(), &format!("print={PRINTED}")];
        let mut line: Vec<OsString> = vec![monitor.clone().into()];
        line.extend(words.map(OsString::from));
        let without = console_rate(bench, &line)?;
        let bundle = variant(bench, "printing", "demo-spt", &[format!("print={PRINTED}")], None)?;
        let mut line: Vec<OsString> = vec![urunc.clone().into(), "--root".into()];
        line.push(bench.place.directory("state-guest")?.into());
        line.extend(["run".into(), "--bundle".into(), bundle.into(), format!("printer{round}").into()]);
        let with = console_rate(bench, &line)?;
        if round > 0 {
            bare.push(without);
            ours.push(with);
        }
    }
    let mut table = Table::new(TITLE, ["without urunc", "urunc"]);
    table.note(
        "The console: 100 MiB printed by solo5-spt's guest into a pipe. The network: echo requests over a veth pair, answered by the pod's \
         own kernel, or by a guest of solo5-spt behind the TAP redirect.",
    );
    table.row("console", "MiB/s", [bare, ours]);
    bench.say("  network");
    let pings = pings(bench)?;
    table.row("echo request, round trip", "µs", pings.iter().map(|pinged| pinged.trips.clone()));
    table.row("echo requests in a flood", "/s", pings.iter().map(|pinged| pinged.rates.clone()));
    table.row(
        "requests of 1,400 bytes in a flood, each way",
        "MiB/s",
        pings.iter().map(|pinged| pinged.volumes.clone()),
    );
    Ok(Some(table))
}

/// Runs a command that prints a lot to its end, and returns mebibytes a second from its first byte to its last.
fn console_rate(bench: &Bench, line: &[OsString]) -> Result<f64> {
    let output = Output::open(&bench.place.path("console"))?;
    let mut launcher = bench.launcher()?;
    std::thread::scope(|scope| {
        let path = output.path.clone();
        let writer = scope.spawn(move || launcher.run(Some(&path), line));
        let first = output.first_byte().ok_or(BenchError::Silent { runtime: "the printer", seconds: 20 })?;
        let flags = rustix::fs::fcntl_getfl(&output.reader).to("look at a fifo")?;
        rustix::fs::fcntl_setfl(&output.reader, flags - rustix::fs::OFlags::NONBLOCK).to("change a fifo")?;
        let mut reader = File::from(output.reader.try_clone().to("duplicate a fifo")?);
        let mut buffer = vec![0; 64 << 10];
        while reader.read(&mut buffer).to("read a fifo")? > 0 {}
        let took = sys::now().saturating_sub(first);
        match writer.join() {
            Ok(result) => result?,
            Err(_) => return Err(BenchError::Unexpected("a thread panicked".to_owned())),
        };
        Ok(f64::from(PRINTED) / took.as_secs_f64())
    })
}

/// The unikernel's bundle with another guest, other arguments, and perhaps a network namespace to join.
fn variant(
    bench: &Bench,
    name: &str,
    guest: &str,
    args: &[String],
    network: Option<&str>,
) -> Result<PathBuf> {
    let bundle = bench.place.directory(name)?;
    let boot = bench.place.directory(&format!("{name}/rootfs/boot"))?;
    std::fs::copy(bench.tools.guests.join(guest), boot.join("kernel")).to(format!("copy {guest}"))?;
    let text = std::fs::read_to_string(bench.workload.unikernel.join("config.json")).to("read a bundle")?;
    let mut spec: Value = serde_json::from_str(&text)?;
    spec["process"]["args"] = json!(args);
    if let Some(path) = network {
        spec["linux"]["namespaces"][1] = json!({"type": "network", "path": path});
    }
    std::fs::write(bundle.join("config.json"), spec.to_string()).to("write a bundle")?;
    Ok(bundle)
}

/// What `ping` found.
#[derive(Clone, Debug)]
struct Pinged {
    /// Microseconds of single requests.
    trips: Vec<f64>,
    /// Requests a second, as fast as they are answered.
    rates: Vec<f64>,
    /// Mebibytes a second each way, without headers.
    volumes: Vec<f64>,
}

/// Of a pod's kernel and of a guest in its place.
fn pings(bench: &Bench) -> Result<[Pinged; 2]> {
    let pod = Holder::start("echo ready && exec cat")?;
    let script = format!(
        "ip link add far type veth peer name eth0 netns {pod} && ip addr add 10.9.0.1/24 dev far && ip link set far up && \
         nsenter --net=/proc/{pod}/ns/net sh -c 'ip addr add {ADDRESS}/24 dev eth0 && ip link set eth0 up && \
         ip route add default via 10.9.0.1' && echo ready && exec cat",
        pod = pod.0.id()
    );
    let far = Holder::start(&script)?;
    let without = ping(&far)?;
    let path = format!("/proc/{}/ns/net", pod.0.id());
    let args = ["answer".to_owned(), format!("ip={ADDRESS}")];
    let bundle = variant(bench, "answering", "demo-net-spt", &args, Some(&path))?;
    let mut launcher = bench.launcher()?;
    let root = bench.place.directory("state-guest")?;
    let pid_file = bench.place.path("pids/answering");
    let mut urunc = |words: &[&Path]| {
        let mut line: Vec<OsString> =
            vec![bench.tools.urunc.clone().into(), "--root".into(), root.clone().into()];
        line.extend(words.iter().map(|word| word.as_os_str().to_owned()));
        launcher.run(None, &line)
    };
    let id = Path::new("answering");
    let word = Path::new;
    urunc(&[word("create"), word("--bundle"), &bundle, word("--pid-file"), &pid_file, id])?;
    let with = urunc(&[word("start"), id]).and_then(|_| ping(&far));
    urunc(&[word("kill"), id, word("KILL")])?;
    let _ = sys::wait4(pid_of(&pid_file)?);
    urunc(&[word("delete"), id])?;
    Ok([without, with?])
}

/// Round trips one after the other, and floods.
fn ping(from: &Holder) -> Result<Pinged> {
    let run = |count: u32, words: &[&str]| -> Result<String> {
        let output = Command::new("nsenter")
            .arg(format!("--net=/proc/{}/ns/net", from.0.id()))
            .args(["ping", "-c", &count.to_string(), ADDRESS])
            .args(words)
            .output()
            .to("run ping")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        Err(BenchError::Command { program: "ping".to_owned(), status: output.status.to_string(), text })
    };
    let text = run(PINGS, &["-i", "0.002"])?;
    let trips = text.lines().filter_map(|line| {
        let time = line.rsplit_once("time=")?.1.trim_end_matches(" ms");
        time.parse::<f64>().ok().map(|ms| ms * 1000.0)
    });
    // The first one asks for the address.
    let trips = trips.skip(1).collect();
    let (mut rates, mut volumes) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let took = flooded(&run(FLOOD, &["-f", "-q"])?)?;
        rates.push(f64::from(FLOOD) * 1000.0 / took);
        let took = flooded(&run(FLOOD, &["-f", "-q", "-s", &FRAME.to_string()])?)?;
        volumes.push(f64::from(FLOOD * FRAME) * 1000.0 / took / f64::from(1 << 20));
    }
    Ok(Pinged { trips, rates, volumes })
}

/// The milliseconds from ping's first request to the last answer, by its own clock.
fn flooded(text: &str) -> Result<f64> {
    let time = text.lines().find_map(|line| line.rsplit_once(", time ")?.1.strip_suffix("ms")?.parse().ok());
    time.ok_or_else(|| BenchError::Unexpected(format!("ping does not say how long it took: {text}")))
}

/// A process in a network namespace of its own.
struct Holder(Child);

impl Holder {
    fn start(script: &str) -> Result<Self> {
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .to("run unshare")?;
        let output = child.stdout.take();
        let holder = Self(child);
        let mut line = String::new();
        if let Some(output) = output {
            std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line)
                .to("read from unshare")?;
        }
        if line.trim() == "ready" {
            return Ok(holder);
        }
        Err(BenchError::Unexpected(
            "cannot make network namespaces with a veth pair; is iproute2 there?".to_owned(),
        ))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
