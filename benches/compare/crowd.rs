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
    let floor = runtimes.iter().find(|runtime| runtime.kind == Kind::Floor);
    let columns = [few.to_string(), many.to_string(), "ratio".to_owned(), "floor's ratio".to_owned()];
    let mut table = Table::new(TITLE, columns);
    table.note(
        "Wall time of urunc's commands. The containers are urunc's, created and waiting. `list` shows all of them, so its time by container \
         is what must not grow. The floor's ratio, among the same containers, is what the kernel itself becomes slower by.",
    );
    let sizes = [few, many];
    let mut launcher = bench.launcher()?;
    let result = among(bench, [Some(runtime), floor], &mut launcher, few, many);
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
    let [(mut few, floor_few), (mut many, floor_many)] = result?;
    table.row("list", "ms", [few[0].clone(), many[0].clone(), Vec::new(), Vec::new()]);
    for (times, size) in [&mut few, &mut many].into_iter().zip(sizes) {
        let size = u32::try_from(size).map_or(f64::INFINITY, f64::from);
        times[0].iter_mut().for_each(|time| *time /= size);
    }
    for (index, measure) in ["list, by container", "create", "delete"].into_iter().enumerate() {
        let ours = ratio(&few[index], &many[index]);
        let floors = ratio(&floor_few[index], &floor_many[index]);
        table.row(measure, "ms", [few[index].clone(), many[index].clone(), ours, floors]);
    }
    Ok(Some(table))
}

/// Of the medians, if there are any.
fn ratio(few: &[f64], many: &[f64]) -> Vec<f64> {
    let median = |values: &[f64]| Summary::of(values.iter().copied()).map(|summary| summary.median);
    median(many).zip(median(few)).map(|(many, few)| many / few).into_iter().collect()
}

/// Times of list, create and delete.
type Times = [Vec<f64>; 3];

fn member(number: usize) -> String {
    format!("member{number:05}")
}

fn among(
    bench: &mut Bench,
    [runtime, floor]: [Option<&Runtime>; 2],
    launcher: &mut Launcher,
    few: usize,
    many: usize,
) -> Result<[(Times, Times); 2]> {
    let Some(member_of) = runtime else { return Ok(Default::default()) };
    let populate = |from, to, launcher: &mut Launcher| -> Result<()> {
        for number in from..to {
            launcher.run(None, &member_of.command(Step::Create, &member(number)))?;
            if number % 500 == 499 {
                bench.say(&format!("  {} containers", number + 1));
            }
        }
        Ok(())
    };
    populate(0, few, launcher)?;
    let first = (commands(runtime, launcher)?, commands(floor, launcher)?);
    populate(few, many, launcher)?;
    Ok([first, (commands(runtime, launcher)?, commands(floor, launcher)?)])
}

/// Leads short lives among the others. The floor has no `list`.
fn commands(runtime: Option<&Runtime>, launcher: &mut Launcher) -> Result<Times> {
    let mut times = Times::default();
    let Some(runtime) = runtime else { return Ok(times) };
    for _ in 0..REPETITIONS {
        let id = "visitor";
        if runtime.kind == Kind::Urunc {
            times[0].push(ms(launcher.run(None, &runtime.list())?.wall()));
        }
        let create = launcher.run(None, &runtime.command(Step::Create, id))?;
        launcher.run(None, &runtime.command(Step::Kill, id))?;
        let _ = sys::wait4(pid_of(&runtime.pid_file(id))?);
        let delete = launcher.run(None, &runtime.command(Step::Delete, id))?;
        for (times, cost) in times[1..].iter_mut().zip([create, delete]) {
            times.push(ms(cost.wall()));
        }
    }
    Ok(times)
}
