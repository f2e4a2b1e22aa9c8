//! What commands cost among many containers, relative to what they cost among few.

use crate::bench::Bench;
use crate::error::Result;
use crate::launcher::Launcher;
use crate::life::pid_of;
use crate::report::{Summary, Table, ms};
use crate::runtime::{Kind, Runtime, Step};
use crate::sys;

pub(crate) const TITLE: &str = "Among many containers";

const REPETITIONS: usize = 15;

/// Measures among `few` and among `many` created containers of urunc.
pub(crate) fn measure(bench: &mut Bench, few: usize, many: usize) -> Result<Option<Table>> {
    let runtimes = bench.runtimes();
    let Some(runtime) = runtimes.iter().find(|runtime| runtime.kind == Kind::Urunc) else { return Ok(None) };
    let columns = [few.to_string(), many.to_string(), "ratio".to_owned()];
    let mut table = Table::new(TITLE, columns);
    table.note(
        "urunc alone, wall time. The containers are created and wait; `list` reads and shows all of them.",
    );
    let mut launcher = bench.launcher()?;
    let result = among(bench, runtime, &mut launcher, few, many);
    bench.say("  removing them");
    for number in 0..many {
        let id = member(number);
        if launcher.run(None, &runtime.command(Step::Kill, &id)).is_err() {
            break;
        }
        if let Ok(pid) = pid_of(&runtime.pid_file(&id)) {
            let _ = sys::wait4(pid);
        }
        launcher.run(None, &runtime.command(Step::Delete, &id))?;
    }
    let [few, many] = result?;
    for (measure, few, many) in
        [("list", &few[0], &many[0]), ("create", &few[1], &many[1]), ("delete", &few[2], &many[2])]
    {
        let median = |values: &[f64]| Summary::of(values.iter().copied()).map(|summary| summary.median);
        let ratio = median(many).zip(median(few)).map(|(many, few)| many / few);
        table.row(measure, "ms", [few.clone(), many.clone(), ratio.into_iter().collect()]);
    }
    Ok(Some(table))
}

fn member(number: usize) -> String {
    format!("member{number:05}")
}

fn among(
    bench: &mut Bench,
    runtime: &Runtime,
    launcher: &mut Launcher,
    few: usize,
    many: usize,
) -> Result<[[Vec<f64>; 3]; 2]> {
    let populate = |from, to, launcher: &mut Launcher| -> Result<()> {
        for number in from..to {
            launcher.run(None, &runtime.command(Step::Create, &member(number)))?;
            if number % 500 == 499 {
                bench.say(&format!("  {} containers", number + 1));
            }
        }
        Ok(())
    };
    populate(0, few, launcher)?;
    let first = commands(runtime, launcher)?;
    populate(few, many, launcher)?;
    Ok([first, commands(runtime, launcher)?])
}

/// Times of list, create and delete.
fn commands(runtime: &Runtime, launcher: &mut Launcher) -> Result<[Vec<f64>; 3]> {
    let mut times: [Vec<f64>; 3] = Default::default();
    for _ in 0..REPETITIONS {
        let id = "visitor";
        let list = launcher.run(None, &runtime.list())?;
        let create = launcher.run(None, &runtime.command(Step::Create, id))?;
        launcher.run(None, &runtime.command(Step::Kill, id))?;
        let _ = sys::wait4(pid_of(&runtime.pid_file(id))?);
        let delete = launcher.run(None, &runtime.command(Step::Delete, id))?;
        for (times, cost) in times.iter_mut().zip([list, create, delete]) {
            times.push(ms(cost.wall()));
        }
    }
    Ok(times)
}
