//! Going through all places where something can go wrong, on all processors.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use libtest_mimic::Failed;

use crate::ground::{Ground, Kind, Story, call_name};
use crate::trace::{Act, Fault};

/// How often a place is tried again that was not reached.
const RETRIES: usize = 3;

/// So many failures are shown.
const MOST_SHOWN: usize = 30;

/// Whether every error is tried at every place, which takes ten minutes; otherwise each place gets one of them in turn.
/// Kills are always tried at all places.
pub(crate) fn is_full() -> bool {
    std::env::var_os("URUNC_FAULT").is_some_and(|value| value == "full")
}

/// A system call of an undisturbed run of a story.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) story: Story,
    pub(crate) process: usize,
    /// Which command of the story the process is, or belongs to.
    pub(crate) command: usize,
    /// Its place among the processes of that command; 0 is urunc itself.
    pub(crate) rank: usize,
    pub(crate) call: usize,
    pub(crate) number: u64,
}

impl Place {
    /// Whether it is urunc's own call, or that of a thread of its.
    pub(crate) fn is_of_urunc(&self) -> bool {
        self.rank == 0 || self.story.commands[self.command] != "create"
    }

    /// Who makes the call, in words.
    pub(crate) fn who(&self, kind: Kind) -> String {
        let command = self.story.commands[self.command];
        let process = match (self.rank, kind) {
            (0, _) => "urunc",
            (_, Kind::WithHooks) if self.rank > 1 || command != "create" => "a hook",
            (1, kind) if command == "create" && kind.joins() => "the intermediate process",
            (1, _) if command == "create" => "init",
            (2, kind) if command == "create" && kind.joins() => "init",
            _ => "a thread for the network",
        };
        format!("{process} of {command}")
    }

    pub(crate) fn fault(&self, act: Act) -> Fault {
        Fault { process: self.process, call: self.call, number: self.number, act }
    }
}

/// How often a story is played to find its places.
const PLAYS: usize = 3;

/// All system calls of the examined commands of `stories`. Of several runs that with the fewest counts: what is done again and
/// again while the kernel takes its time (a group that is busy for a moment) is not in every run.
pub(crate) fn places(kind: Kind, stories: &[Story]) -> Result<Vec<Place>, Failed> {
    let mut places = Vec::new();
    for &story in stories {
        let plays = (0..PLAYS).map(|_| play(kind, story)).collect::<Result<Vec<_>, _>>()?;
        places.extend(plays.into_iter().min_by_key(Vec::len).unwrap_or_default());
    }
    Ok(places)
}

/// All system calls of the examined commands of an undisturbed `story`.
fn play(kind: Kind, story: Story) -> Result<Vec<Place>, Failed> {
    let mut places = Vec::new();
    let ground = Ground::new(kind);
    let (mut tracer, ended) = ground.play(story, None);
    if let Some((_, failed)) = ended.iter().find(|(_, ended)| !ended.succeeded()) {
        return Err(format!("an undisturbed command failed: {failed:?}").into());
    }
    let own = tracer.processes();
    let wrong = ground.clean_up(&mut tracer);
    if !wrong.is_empty() {
        return Err(format!("after an undisturbed run: {wrong:#?}").into());
    }
    for (process, calls) in tracer.into_calls().into_iter().take(own).enumerate() {
        let command = ended.iter().rposition(|(first, _)| *first <= process).unwrap_or_default();
        if command < story.from {
            continue;
        }
        let rank = process - ended[command].0;
        places.extend(calls.into_iter().enumerate().map(|(call, number)| Place {
            story,
            process,
            command,
            rank,
            call,
            number,
        }));
    }
    Ok(places)
}

/// Until `main`, it is the dynamic loader and the language's start-up that run. The latter ends by giving the main thread
/// a signal stack: the second call about signal stacks. A process that was forked has no start-up.
pub(crate) fn skip_start_up(places: &mut Vec<Place>) {
    let mut in_main = false;
    let mut stacks = 0;
    places.retain(|place| {
        if place.call == 0 {
            (in_main, stacks) = (place.rank > 0, 0);
        }
        let kept = in_main;
        stacks += usize::from(place.number == libc::SYS_sigaltstack.cast_unsigned());
        in_main |= stacks == 2;
        kept
    });
}

/// What a trial has found out.
pub(crate) enum Outcome {
    Fine,
    /// The process did not come to the place where something was to go wrong.
    NotReached,
    Wrong(Vec<String>),
}

/// Tries all `trials`, and prints and returns how it went: how many were tried, where, and what was wrong.
pub(crate) fn try_all(
    kind: Kind,
    trials: &[(Place, Act)],
    outcome: impl Fn(&Ground, &Place, Act) -> Outcome + Sync,
) -> Result<(), Failed> {
    let next = AtomicUsize::new(0);
    let missed = AtomicUsize::new(0);
    let failures = Mutex::new(0);
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let mut ground = Ground::new(kind);
                while let Some((place, act)) = trials.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut result = outcome(&ground, place, *act);
                    // Not all runs are alike: events of the network come sooner or later.
                    for _ in 0..RETRIES {
                        if matches!(result, Outcome::NotReached) {
                            result = outcome(&ground, place, *act);
                        }
                    }
                    match result {
                        Outcome::Fine => {}
                        Outcome::NotReached => {
                            missed.fetch_add(1, Ordering::Relaxed);
                        }
                        Outcome::Wrong(what) => {
                            let call = call_name(place.number);
                            let mut failures = failures.lock().unwrap();
                            *failures += 1;
                            if *failures <= MOST_SHOWN {
                                let (who, index) = (place.who(kind), place.call);
                                eprintln!("{who}, call {index} ({call}), {act:?}: {what:#?}");
                            }
                            drop(failures);
                            // What is left must not be blamed on the next.
                            ground = Ground::new(kind);
                        }
                    }
                }
            });
        }
    });
    let (missed, failures) = (missed.into_inner(), failures.into_inner().unwrap());
    if missed > 0 {
        eprintln!("{missed} places of {} are not in every run, and were not reached", trials.len());
    }
    if failures == 0 && missed <= 20 + trials.len() / 50 {
        return Ok(());
    }
    Err(format!("{failures} of {} went wrong, {missed} places were not reached", trials.len()).into())
}

/// How many trials there are for each process of each command.
pub(crate) fn summary(kind: Kind, trials: &[(Place, Act)]) -> String {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for (place, _) in trials {
        let who = place.who(kind);
        match counts.iter_mut().find(|(name, _)| *name == who) {
            Some((_, count)) => *count += 1,
            None => counts.push((who, 1)),
        }
    }
    let list: Vec<_> = counts.iter().map(|(who, count)| format!("{count} in {who}")).collect();
    format!("{}: {}", trials.len(), list.join(", "))
}
