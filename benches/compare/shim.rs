//! The shim under containerd, next to containerd's own for runc: what an idle one holds, and what a container's life costs with `ctr`.

use std::ffi::OsString;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::bench::Bench;
use crate::containerd::{Containerd, NAMESPACE};
use crate::cycles::{mib, rollup};
use crate::error::{BenchError, Context, Result};
use crate::report::{Table, ms};
use crate::sys;
use crate::workload::in_path;

pub(crate) const TITLE: &str = "Under containerd";

/// A shim and what it is given to run.
struct Contender {
    name: &'static str,
    program: std::path::PathBuf,
    runtime: &'static str,
    image: String,
    /// Arguments of the container that stays, and of the one that prints and ends.
    stay: Vec<String>,
    end: Vec<String>,
}

/// What was measured of one.
#[derive(Debug, Default)]
struct Figures {
    first_byte: Vec<f64>,
    whole: Vec<f64>,
    cpu: Vec<f64>,
    start_cpu: Vec<f64>,
    alone: [Option<f64>; 3],
    among_ten: [Vec<f64>; 3],
    of_ten: [Option<f64>; 3],
}

/// Measures `rounds` runs, and idle shims with one container and with `many`.
pub(crate) fn measure(bench: &mut Bench, rounds: usize, many: usize) -> Result<Table> {
    let containerd = Containerd::start(bench)?;
    let contenders = contenders(bench, &containerd)?;
    let mut figures: Vec<Figures> = contenders.iter().map(|_| Figures::default()).collect();
    let mut order: Vec<usize> = (0..contenders.len()).collect();
    for round in 0..=rounds {
        bench.shuffle(&mut order);
        for &index in &order {
            let figures = &mut figures[index];
            let (first, whole, cpu) = run(&containerd, &contenders[index], round)?;
            // containerd's own shim does not always stay when nobody calls it.
            let start = start_cpu(bench, &containerd, &contenders[index], round).ok();
            if round > 0 {
                figures.first_byte.push(first);
                figures.whole.push(whole);
                figures.cpu.push(cpu);
                figures.start_cpu.extend(start);
            }
        }
    }
    for (contender, figures) in contenders.iter().zip(&mut figures) {
        bench.say(&format!("  idle shims of {}", contender.name));
        idle(&containerd, contender, figures, many)?;
        figures.of_ten = pod(&containerd, contender, many)?;
    }
    let mut table = Table::new(TITLE, contenders.iter().map(|contender| contender.name));
    table.note(
        "`ctr run --rm` of a container that prints and ends. CPU time without ctr and containerd. Idle shims by `ctr run --detach`, which \
         gives each container its own; unique is what no other process shares.",
    );
    let column = |value: &dyn Fn(&Figures) -> Vec<f64>| figures.iter().map(value).collect::<Vec<_>>();
    table.row("ctr run to first byte", "ms", column(&|figures| figures.first_byte.clone()));
    table.row("ctr run --rm, wall", "ms", column(&|figures| figures.whole.clone()));
    // The mean: the kernel counts a part of it in hundredths of a second, which add up but have no meaningful median.
    table.row(
        "ctr run --rm, CPU of shim and runtime",
        "ms",
        column(&|figures| mean(&figures.cpu).into_iter().collect()),
    );
    table.row("shim start, CPU", "ms", column(&|figures| figures.start_cpu.clone()));
    for (index, (name, unit)) in
        [("proportional memory", "MiB"), ("unique memory", "MiB"), ("threads", "")].into_iter().enumerate()
    {
        table.row(
            &format!("idle shim alone, {name}"),
            unit,
            column(&|figures| figures.alone[index].into_iter().collect()),
        );
        table.row(
            &format!("each of {many} idle shims, {name}"),
            unit,
            column(&|figures| figures.among_ten[index].clone()),
        );
        table.row(
            &format!("idle shim of a pod of {many}, {name}"),
            unit,
            column(&|figures| figures.of_ten[index].into_iter().collect()),
        );
    }
    Ok(table)
}

#[expect(clippy::cast_precision_loss, reason = "a few dozen")]
fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn contenders(bench: &Bench, containerd: &Containerd) -> Result<Vec<Contender>> {
    let rootfs = |bundle: &Path| bundle.join("rootfs");
    let annotations = json!({
        "com.urunc.unikernel.unikernelType": "generic",
        "com.urunc.unikernel.hypervisor": "spt",
        "com.urunc.unikernel.binary": "/boot/kernel",
    });
    let with = |last: &str| {
        let mut args = bench.workload.args.clone();
        args.pop();
        args.push(last.to_owned());
        args
    };
    let shim = "containerd-shim-urunc-v2";
    let own = bench.tools.urunc.parent().map(|parent| parent.join(shim)).unwrap_or_default();
    let mut contenders = vec![Contender {
        name: "urunc",
        program: own,
        runtime: "io.containerd.urunc.v2",
        image: containerd.import("unikernel", &rootfs(&bench.workload.unikernel), &[], &annotations)?,
        stay: vec!["hold".to_owned()],
        end: vec!["hello".to_owned()],
    }];
    if let Some(program) = in_path("containerd-shim-runc-v2").filter(|_| in_path("runc").is_some()) {
        contenders.push(Contender {
            name: "runc",
            program,
            runtime: "io.containerd.runc.v2",
            image: containerd.import("program", &rootfs(&bench.workload.program), &[], &json!({}))?,
            stay: with("hold"),
            end: with("hello"),
        });
    }
    Ok(contenders)
}

/// `ctr run --rm`: milliseconds to the first byte and to the end, and CPU time of what containerd started.
fn run(containerd: &Containerd, contender: &Contender, round: usize) -> Result<(f64, f64, f64)> {
    let id = format!("run-{}-{round}", contender.name);
    let mut words =
        vec!["run", "--rm", "--runtime", contender.runtime, contender.image.as_str(), id.as_str()];
    words.extend(contender.end.iter().map(String::as_str));
    let line = containerd.line(&words);
    let commands_before = children_cpu(containerd.pid())?;
    let begin = sys::now();
    let mut child = Command::new(&line[0])
        .args(&line[1..])
        .envs(containerd.environment())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .to("run ctr")?;
    let mut output =
        child.stdout.take().ok_or_else(|| BenchError::Unexpected("ctr has no output".to_owned()))?;
    let mut first = [0u8];
    output.read_exact(&mut first).to(format!("read what {id} prints"))?;
    let printed = sys::now();
    std::io::copy(&mut output, &mut std::io::sink()).to("read ctr's output")?;
    let status = child.wait().to("wait for ctr")?;
    let end = sys::now();
    if !status.success() {
        return Err(BenchError::Command {
            program: format!("ctr run {id}"),
            status: status.to_string(),
            text: String::new(),
        });
    }
    let daemon = ended(&id)?;
    let commands = children_cpu(containerd.pid())?.saturating_sub(commands_before);
    Ok((ms(printed.saturating_sub(begin)), ms(end.saturating_sub(begin)), ms(daemon + commands)))
}

/// CPU time of the shim's `start` and of the process that it leaves behind until that listens, without containerd.
fn start_cpu(bench: &Bench, containerd: &Containerd, contender: &Contender, round: usize) -> Result<f64> {
    let id = format!("start-{}-{round}", contender.name);
    let bundle = bench.place.directory(&format!("bundle-{id}"))?;
    std::fs::copy(bench.workload.program.join("config.json"), bundle.join("config.json"))
        .to("copy a bundle")?;
    let mut launcher = bench.launcher_in(&bundle)?;
    let address = containerd.line(&["version"]).into_iter().nth(2).unwrap_or_default();
    let mut line: Vec<OsString> = vec![contender.program.clone().into()];
    line.extend(
        ["-namespace", NAMESPACE, "-id", id.as_str(), "-publish-binary", "containerd", "-address"]
            .map(OsString::from),
    );
    line.extend([address, "start".into()]);
    let cost = launcher.run(None, &line)?;
    let daemon = adopted(&id).inspect_err(|_| reap())?;
    // It sleeps once it has nothing to do but to listen.
    settle(daemon)?;
    if let Some(pid) = Pid::from_raw(daemon) {
        kill_process(pid, Signal::KILL).to("end a shim")?;
    }
    let usage = sys::wait4(daemon).to("wait for the shim's end")?;
    Ok(ms(cost.cpu + usage.cpu))
}

/// Waits until a process has used no time for a while.
fn settle(pid: i32) -> Result<()> {
    let ticks = || -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).to("read schedstat")?;
        Ok(text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0))
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut before = ticks()?;
    while Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
        let now = ticks()?;
        if now == before && now > 0 {
            return Ok(());
        }
        before = now;
    }
    Ok(())
}

/// Holds idle shims, first one and then `many`, and looks at them.
fn idle(containerd: &Containerd, contender: &Contender, figures: &mut Figures, many: usize) -> Result<()> {
    let mut shims = Vec::new();
    for number in 0..many {
        let id = format!("idle-{}-{number}", contender.name);
        let mut words =
            vec!["run", "--detach", "--runtime", contender.runtime, contender.image.as_str(), id.as_str()];
        words.extend(contender.stay.iter().map(String::as_str));
        containerd.ctr(&words)?;
        let shim = adopted(&id)?;
        shims.push((id, shim));
        if number == 0 {
            settle(shim)?;
            figures.alone = look(shim);
        }
    }
    for (_, shim) in &shims {
        settle(*shim)?;
        for (values, value) in figures.among_ten.iter_mut().zip(look(*shim)) {
            values.extend(value);
        }
    }
    for (id, shim) in shims {
        containerd.ctr(&["task", "rm", "--force", &id])?;
        containerd.ctr(&["containers", "rm", &id])?;
        let _ = sys::wait4(shim);
    }
    Ok(())
}

/// Holds one idle shim with the `many` containers of a pod, and looks at it.
fn pod(containerd: &Containerd, contender: &Contender, many: usize) -> Result<[Option<f64>; 3]> {
    let group = format!("io.containerd.runc.v2.group=pod-{}", contender.name);
    let ids: Vec<String> = (0..many).map(|number| format!("pod-{}-{number}", contender.name)).collect();
    for id in &ids {
        let mut words = vec!["run", "--detach", "--annotation", &group, "--runtime", contender.runtime];
        words.extend([contender.image.as_str(), id.as_str()]);
        words.extend(contender.stay.iter().map(String::as_str));
        containerd.ctr(&words)?;
    }
    let shim = adopted(&ids[0])?;
    settle(shim)?;
    let figures = look(shim);
    for id in &ids {
        containerd.ctr(&["task", "rm", "--force", id])?;
        containerd.ctr(&["containers", "rm", id])?;
    }
    let _ = sys::wait4(shim);
    Ok(figures)
}

/// Proportional and unique memory in MiB, and threads.
fn look(pid: i32) -> [Option<f64>; 3] {
    let proportional = rollup(pid, "Pss:").map(mib);
    let unique = rollup(pid, "Private_Clean:")
        .zip(rollup(pid, "Private_Dirty:"))
        .map(|(clean, dirty)| mib(clean + dirty));
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map(Iterator::count).ok();
    let threads = threads.and_then(|count| u32::try_from(count).ok()).map(f64::from);
    [proportional, unique, threads]
}

/// The shim of container `id`: a child of ours that has `-id ID` on its command line.
fn adopted(id: &str) -> Result<i32> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let found = children().into_iter().find(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            words.windows(2).any(|pair| pair[0] == b"-id" && pair[1] == id.as_bytes())
        });
        match found {
            Some(pid) => return Ok(pid),
            None if Instant::now() > deadline => {
                return Err(BenchError::Unexpected(format!(
                    "the shim of {id} was not handed down to the bench"
                )));
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Waits until the shim of container `id` has ended, and returns its CPU time. It may have ended already, and then has no
/// command line any more; but no other shim ends meanwhile.
fn ended(id: &str) -> Result<Duration> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        for pid in children() {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if stat.contains("(containerd-shim) Z ") {
                return Ok(sys::wait4(pid).to("wait for the shim's end")?.cpu);
            }
        }
        if Instant::now() > deadline {
            return Err(BenchError::Unexpected(format!("the shim of {id} does not end")));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Takes off the list what has ended, so that it is not taken for something else.
fn reap() {
    for pid in children() {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.contains("(containerd-shim) Z ") {
            let _ = sys::wait4(pid);
        }
    }
}

/// This process's children, adopted ones included (proc_tid_children(5) needs a kernel option, so by their status).
fn children() -> Vec<i32> {
    let own = std::process::id().to_string();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            let (_, rest) = stat.rsplit_once(')')?;
            (rest.split_ascii_whitespace().nth(1)? == own).then_some(pid)
        })
        .collect()
}

/// CPU time of the children that a process has waited for: fields 16 and 17 of proc_pid_stat(5).
fn children_cpu(pid: u32) -> Result<Duration> {
    /// The kernel always shows a hundredth of a second here (`USER_HZ`).
    const TICK: Duration = Duration::from_millis(10);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).to("read containerd's times")?;
    let rest = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let fields: Vec<u32> =
        rest.split_ascii_whitespace().skip(13).take(2).filter_map(|word| word.parse().ok()).collect();
    Ok(TICK * fields.iter().sum())
}
