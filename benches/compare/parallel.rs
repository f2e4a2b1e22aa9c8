//! Many lives at once: how many a second, and how many are lost.

use std::sync::Barrier;

use crate::bench::Bench;
use crate::error::{BenchError, Result};
use crate::life::Life;
use crate::report::Table;
use crate::runtime::Runtime;

pub(crate) const TITLE: &str = "Many lives at once";

/// Measures each size so many times.
pub(crate) fn measure(bench: &mut Bench, sizes: &[(usize, usize)]) -> Result<Table> {
    let runtimes = bench.runtimes();
    let mut table = Table::new(TITLE, runtimes.iter().map(|runtime| runtime.kind.name()));
    table.note(
        "Containers a second from the first create to the last delete, each led by a thread of its own.",
    );
    let mut lost = vec![0.0; runtimes.len()];
    for &(size, repetitions) in sizes {
        bench.say(&format!("  {size} at once"));
        let mut rates: Vec<Vec<f64>> = runtimes.iter().map(|_| Vec::new()).collect();
        let mut order: Vec<usize> = (0..runtimes.len()).collect();
        for _ in 0..repetitions {
            bench.shuffle(&mut order);
            for &index in &order {
                let (rate, errors) = storm(bench, &runtimes[index], size)?;
                rates[index].push(rate);
                #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
                let count = errors.len() as f64;
                lost[index] += count;
                errors.iter().take(1).for_each(|error| bench.complain(runtimes[index].kind, error));
            }
        }
        table.row(&format!("{size} at once"), "/s", rates);
    }
    table.row("lost", "", lost.into_iter().map(|count| [count]));
    Ok(table)
}

/// Leads `size` lives at once; the rate counts those that succeeded.
fn storm(bench: &Bench, runtime: &Runtime, size: usize) -> Result<(f64, Vec<BenchError>)> {
    let mut launchers = (0..size).map(|_| bench.launcher()).collect::<Result<Vec<_>>>()?;
    let barrier = Barrier::new(size);
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = launchers
            .iter_mut()
            .enumerate()
            .map(|(number, launcher)| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    Life::lead(runtime, launcher, &format!("storm{number}"))
                })
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let (mut lives, mut errors) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(life) => lives.push(life),
            Err(error) => errors.push(error),
        }
    }
    // By the lives' own clocks: a thread that only looked on would be woken as one of many, and late.
    let begin = lives.iter().map(|life| life.begin).min().unwrap_or_default();
    let end = lives.iter().map(|life| life.end).max().unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let rate = if lives.is_empty() { 0.0 } else { lives.len() as f64 / (end - begin).as_secs_f64() };
    Ok((rate, errors))
}
