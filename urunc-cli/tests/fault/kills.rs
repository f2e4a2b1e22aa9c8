//! SIGKILL before and after every system call of every process that a command has. One forced delete afterwards makes
//! the host what it was (design.md, section 11).

use libtest_mimic::Failed;

use crate::ground::{Ground, Kind};
use crate::sweep::{Outcome, Place, places, skip_start_up, summary, try_all};
use crate::trace::{Act, Moment};

pub(crate) fn alone() -> Result<(), Failed> {
    sweep(Kind::Alone)
}

pub(crate) fn in_pod() -> Result<(), Failed> {
    sweep(Kind::InPod)
}

pub(crate) fn with_disks() -> Result<(), Failed> {
    sweep(Kind::WithDisks)
}

pub(crate) fn with_hooks() -> Result<(), Failed> {
    sweep(Kind::WithHooks)
}

pub(crate) fn behind_pod() -> Result<(), Failed> {
    sweep(Kind::BehindPod)
}

fn sweep(kind: Kind) -> Result<(), Failed> {
    let mut places = places(kind, kind.stories())?;
    if kind != Kind::Alone {
        // The loader and the language know nothing of pods and disks.
        skip_start_up(&mut places);
    }
    let all = places.len();
    let trials: Vec<(Place, Act)> = places
        .into_iter()
        .step_by(kind.step())
        .flat_map(|place| [Moment::Before, Moment::After].map(|moment| (place, Act::Kill(moment))))
        // Nobody returns from these.
        .filter(|(place, act)| {
            *act == Act::Kill(Moment::Before)
                || ![libc::SYS_exit, libc::SYS_exit_group].map(i64::cast_unsigned).contains(&place.number)
        })
        .collect();
    eprintln!("kill points, {kind:?}: {}", summary(kind, &trials));
    if kind.step() > 1 {
        eprintln!("that is before and after one in {} of {all} places", kind.step());
    }
    try_all(kind, &trials, kill)
}

fn kill(ground: &Ground, place: &Place, act: Act) -> Outcome {
    let (mut tracer, ended) = ground.play(place.story, Some(place.fault(act)));
    let reached = tracer.has_fired();
    let mut wrong = ground.clean_up(&mut tracer);
    // A command may die only by the signal that is meant for it.
    for (command, (_, ended)) in ended.into_iter().enumerate() {
        let killed = reached && command == place.command && place.is_of_urunc();
        match ended.status {
            Err(libc::SIGKILL) if killed => {}
            Ok(0 | 1) => {}
            _ => wrong.push(format!("{ended:?}")),
        }
    }
    if !wrong.is_empty() {
        Outcome::Wrong(wrong)
    } else if reached {
        Outcome::Fine
    } else {
        Outcome::NotReached
    }
}
