//! Two commands on one container: the first stands still before one of its system calls while the second runs, until that
//! one has ended or waits for the first. Of two that exclude each other exactly one succeeds, the other says why in one
//! sentence, and what one has deleted is gone.

use libtest_mimic::Failed;

use crate::ground::{Ground, Kind, Story};
use crate::sweep::{Outcome, Place, places, skip_start_up, try_all};
use crate::trace::{Act, Ended, Tracer};

/// Commands that meet.
#[derive(Clone, Copy, Debug)]
struct Pair {
    first: Story,
    second: &'static str,
    /// Whether they exclude each other.
    exclusive: bool,
}

const fn pair(first: &'static [&'static str; 2], second: &'static str, exclusive: bool) -> Pair {
    Pair { first: Story { commands: first, from: 1 }, second, exclusive }
}

const PAIRS: [Pair; 12] = [
    pair(&["create", "start"], "start", true),
    pair(&["create", "start"], "delete", true),
    pair(&["create", "delete"], "start", true),
    pair(&["create", "delete"], "delete", true),
    pair(&["create", "kill"], "kill", false),
    pair(&["create", "kill"], "delete", false),
    pair(&["create", "delete"], "kill", false),
    pair(&["create", "start"], "kill", false),
    pair(&["create", "kill"], "start", false),
    pair(&["create", "start"], "delete --force", false),
    pair(&["create", "delete --force"], "start", false),
    pair(&["create", "delete --force"], "delete --force", false),
];

pub(crate) fn pairs() -> Result<(), Failed> {
    let mut tried = 0;
    for pair in PAIRS {
        let mut places = places(Kind::Alone, &[pair.first])?;
        skip_start_up(&mut places);
        let trials: Vec<_> =
            places.into_iter().filter(|place| place.rank == 0).map(|place| (place, Act::Pause)).collect();
        tried += trials.len();
        try_all(Kind::Alone, &trials, |ground, place, act| meet(ground, place, act, pair))
            .map_err(|error| format!("{pair:?}: {}", error.message().unwrap_or_default()))?;
    }
    eprintln!("meetings: {tried} of {} pairs of commands", PAIRS.len());
    Ok(())
}

fn meet(ground: &Ground, place: &Place, act: Act, pair: Pair) -> Outcome {
    let mut tracer = Tracer::new(Some(place.fault(act)));
    let create = tracer.run(ground.command("create"));
    let first = tracer.begin(ground.command(pair.first.commands[1]));
    tracer.run_until_paused(&first);
    let reached = tracer.has_fired();
    let second = tracer.begin(ground.command(pair.second));
    tracer.run_until_blocked(&second);
    tracer.go_on_from_pause();
    let ended = [tracer.end(first), tracer.end(second)];
    let commands = [pair.first.commands[1], pair.second];
    let mut wrong = judge(&commands, &ended, pair.exclusive);
    if !create.succeeded() {
        wrong.push(format!("create: {create:?}"));
    }
    let deleted =
        commands.iter().zip(&ended).any(|(name, ended)| name.starts_with("delete") && ended.succeeded());
    if deleted {
        wrong.extend(tracer.drain().err());
        wrong.extend(ground.changes().into_iter().map(|change| format!("left by delete: {change}")));
    }
    wrong.extend(ground.clean_up(&mut tracer));
    match (wrong.is_empty(), reached) {
        (false, _) => {
            wrong.push(format!("{ended:?}"));
            Outcome::Wrong(wrong)
        }
        (true, false) => Outcome::NotReached,
        (true, true) => Outcome::Fine,
    }
}

fn judge(commands: &[&str; 2], ended: &[Ended; 2], exclusive: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, ended) in commands.iter().zip(ended) {
        let errors = ended.said.lines().filter(|line| line.starts_with("urunc: error: ")).count();
        let fine = match ended.status {
            Ok(0) => errors == 0,
            // Force has its way.
            Ok(1) => errors == 1 && ended.said.lines().count() == 1 && *name != "delete --force",
            _ => false,
        };
        if !fine {
            wrong.push(format!("{name}: {ended:?}"));
        }
    }
    match ended.iter().filter(|ended| ended.succeeded()).count() {
        0 => wrong.push("neither succeeded".to_owned()),
        2 if exclusive => wrong.push("both succeeded".to_owned()),
        _ => {}
    }
    wrong
}
