//! The end-to-end comparison of container runtimes: urunc, its peers, and the floor below which none can go.
//!
//! `make bench` builds what is measured and runs this. Results are written as Markdown, JSON and SVG. All that is measured happens in
//! a mount namespace of this process's own; what is left behind on a failure is containers' processes at most, which die by `delete`.
#![deny(unsafe_code)]

mod bench;
mod calls;
mod containerd;
mod crowd;
mod cycles;
mod disk;
mod error;
mod guest;
mod launcher;
mod life;
mod markdown;
mod network;
mod parallel;
mod place;
mod plot;
mod report;
mod runtime;
mod shim;
mod sys;
mod targets;
mod workload;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use crate::bench::{Bench, Tools, chain};
use crate::error::{BenchError, Context, Result};
use crate::place::Place;
use crate::report::Report;
use crate::runtime::Kind;

/// Measures urunc against other runtimes and against the least that any runtime must do.
#[derive(Debug, Parser)]
struct Options {
    /// The built `urunc`; the shim is looked for beside it.
    #[arg(long)]
    urunc: PathBuf,
    /// Directory with the built `floor`, `launch` and `stand-in`.
    #[arg(long)]
    floor: PathBuf,
    /// Directory with the built demo unikernels.
    #[arg(long)]
    guests: PathBuf,
    /// Directory that the results of all parts are written to; without it, and with `--only`, they are printed.
    #[arg(long)]
    out: Option<PathBuf>,
    /// How many rounds.
    #[arg(long, default_value_t = 40)]
    rounds: usize,
    /// One round with urunc and the floor alone, without disks and containerd, to see that the bench itself works.
    #[arg(long)]
    smoke: bool,
    /// Only these parts: life, parallel, calls, network, guest, disk, crowd, shim.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "compare: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    if options.smoke && !rustix::process::geteuid().is_root() {
        return refuse_or_skip();
    }
    // Containers' processes are handed down to us when `create` ends, and counted.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).to("become a subreaper")?;
    let place = Place::make()?;
    let wanted = if options.smoke { &Kind::ALL[..2] } else { &Kind::ALL[..] };
    let absolute = |path: &Path| std::path::absolute(path).to(format!("find {}", path.display()));
    let tools = Tools {
        urunc: absolute(&options.urunc)?,
        floor: absolute(&options.floor)?,
        guests: absolute(&options.guests)?,
    };
    let mut bench = Bench::set_up(place, tools, wanted)?;
    bench.skipped.iter().for_each(|line| bench.say(&format!("skipped: {line}")));
    let report = measure(&mut bench, options)?;
    let text = markdown::render(&report);
    match &options.out {
        Some(directory) if options.only.is_empty() => write_results(directory, &report, &text)?,
        _ => std::io::stdout().lock().write_all(text.as_bytes()).to("write to standard output")?,
    }
    let failed = bench.failures();
    if options.smoke && failed > 0 {
        return Err(BenchError::Unexpected(format!("{failed} measurements failed")));
    }
    Ok(())
}

/// Tests that need root are skipped without it, visibly, unless the environment forbids that.
fn refuse_or_skip() -> Result<()> {
    let required = std::env::var("URUNC_REQUIRE").unwrap_or_default();
    if required.split(',').any(|word| word == "root") {
        return Err(BenchError::Unexpected("root is needed".to_owned()));
    }
    let _ = writeln!(std::io::stderr(), "skipped: needs root");
    Ok(())
}

fn measure(bench: &mut Bench, options: &Options) -> Result<Report> {
    let wanted = |part: &str| options.only.is_empty() || options.only.iter().any(|only| only == part);
    let smoke = options.smoke;
    let rounds = if smoke { 1 } else { options.rounds };
    let mut tables = Vec::new();
    if wanted("life") {
        bench.say("one container's life");
        tables.push(cycles::measure(bench, rounds)?);
    }
    if wanted("parallel") {
        bench.say("many lives at once");
        tables.push(parallel::measure(bench, if smoke { &[(2, 1)] } else { &[(20, 12), (100, 6)] })?);
    }
    if wanted("calls") {
        bench.say("system calls");
        tables.push(calls::measure(bench)?);
    }
    if wanted("network") {
        bench.say("network");
        tables.push(network::measure(bench, rounds)?);
    }
    if wanted("guest") {
        bench.say("what a guest feels");
        tables.extend(guest::measure(bench, if smoke { 1 } else { 7 })?);
    }
    if wanted("disk") && !smoke {
        bench.say("disks");
        tables.extend(disk::measure(bench, 5)?);
    }
    if wanted("crowd") {
        bench.say("among many containers");
        let (few, many) = if smoke { (1, 2) } else { (10, 2000) };
        tables.extend(crowd::measure(bench, few, many)?);
    }
    if wanted("shim") && !smoke {
        bench.say("under containerd");
        if workload::in_path("containerd").is_some() && workload::in_path("ctr").is_some() {
            // containerd's default limits need controllers that the bench's own v2 hierarchy may not have.
            bench.place.restore_cgroups()?;
            tables.push(shim::measure(bench, rounds.min(20), 10)?);
        } else {
            bench.skipped.push("the shim: containerd is not installed".to_owned());
        }
    }
    let mut circumstances = vec![
        ("machine".to_owned(), machine()),
        ("workload".to_owned(), bench.workload.description.clone()),
        ("cgroups".to_owned(), bench.place.layout.to_owned()),
        ("state and images".to_owned(), "on tmpfs".to_owned()),
        ("rounds".to_owned(), rounds.to_string()),
    ];
    let versions = bench.runtimes();
    circumstances
        .extend(versions.iter().map(|runtime| (runtime.kind.name().to_owned(), runtime.version.clone())));
    let verdicts = targets::judge(&tables);
    Ok(Report { circumstances, skipped: bench.skipped.clone(), verdicts, tables })
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    format!(
        "{cpus} × {}, Linux {}",
        model.trim_start_matches([' ', '\t', ':']),
        read("/proc/sys/kernel/osrelease").trim()
    )
}

fn write_results(directory: &Path, report: &Report, text: &str) -> Result<()> {
    std::fs::create_dir_all(directory).to(format!("make {}", directory.display()))?;
    let write = |name: &str, contents: &str| {
        std::fs::write(directory.join(name), contents).to(format!("write {name}"))
    };
    write("results.md", text)?;
    write("results.json", &format!("{}\n", serde_json::to_string_pretty(report)?))?;
    if let Some(table) = report.tables.iter().find(|table| table.title == cycles::TITLE) {
        let measures = ["whole cycle, wall", "whole cycle, CPU", "create to first byte"];
        write("results.svg", &plot::draw(table, &measures))?;
    }
    Ok(())
}
