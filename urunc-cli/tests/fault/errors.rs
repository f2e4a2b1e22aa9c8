//! An error of every system call that a command makes: it succeeds all the same, or fails with one sentence. A failed
//! create has undone itself; after one forced delete the host is what it was, whatever failed.

use libtest_mimic::Failed;
use urunc_state::{ContainerId, Status, Store};

use crate::ground::{Ground, Kind};
use crate::sweep::{Outcome, Place, is_full, places, skip_start_up, summary, try_all};
use crate::trace::{Act, Ended};

/// A full disk, no descriptors, no memory, a broken disk, a signal.
const ERRORS: [i32; 5] = [libc::ENOSPC, libc::EMFILE, libc::ENOMEM, libc::EIO, libc::EINTR];

/// Calls that cannot fail, or not in one of these ways; the C and Rust libraries abort if they do all the same. (That of
/// `getrandom` makes the standard library panic on purpose, see `library/std/src/sys/random/linux.rs`; the store's own
/// use of it is tested in `urunc-state`. A sleep that fails with anything but EINTR makes it panic, too. `brk` returns the old break when it fails, no error.)
const CANNOT_FAIL: [i64; 18] = [
    libc::SYS_brk,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_geteuid,
    libc::SYS_getuid,
    libc::SYS_getegid,
    libc::SYS_getgid,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_getrandom,
    libc::SYS_futex,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
];

/// Calls by which the allocator and threads get memory: a Rust program without memory is aborted, and that is like being
/// killed.
const MEMORY: [i64; 5] =
    [libc::SYS_mmap, libc::SYS_mremap, libc::SYS_munmap, libc::SYS_madvise, libc::SYS_mprotect];

pub(crate) fn alone() -> Result<(), Failed> {
    sweep(Kind::Alone)
}

pub(crate) fn in_pod() -> Result<(), Failed> {
    sweep(Kind::InPod)
}

pub(crate) fn with_disks() -> Result<(), Failed> {
    sweep(Kind::WithDisks)
}

fn is_one_of(call: u64, calls: &[i64]) -> bool {
    calls.iter().any(|one| one.cast_unsigned() == call)
}

fn sweep(kind: Kind) -> Result<(), Failed> {
    let mut places = places(kind, kind.stories())?;
    skip_start_up(&mut places);
    let all = is_full();
    // Most calls are made in a pod as well as alone, and then get another error there.
    let offset = match kind {
        Kind::Alone => 0,
        Kind::InPod => 2,
        Kind::WithDisks | Kind::WithHooks | Kind::BehindPod => 4,
    };
    let trials: Vec<(Place, Act)> = places
        .into_iter()
        .filter(|place| !is_one_of(place.number, &CANNOT_FAIL))
        .enumerate()
        .flat_map(|(index, place)| {
            // Of other errors of closing a directory the standard library thinks that they cannot be.
            let close = is_one_of(place.number, &[libc::SYS_close]);
            let errors = if close {
                &[libc::EINTR][..]
            } else if all {
                &ERRORS[..]
            } else {
                &ERRORS[(index + offset) % ERRORS.len()..][..1]
            };
            errors.iter().map(move |errno| (place, Act::Fail(*errno)))
        })
        .collect();
    let how = if all {
        "every error at every call"
    } else {
        "one error at every call; URUNC_FAULT=full: every one"
    };
    eprintln!("failing system calls, {kind:?} ({how}): {}", summary(kind, &trials));
    try_all(kind, &trials, fail)
}

fn fail(ground: &Ground, place: &Place, act: Act) -> Outcome {
    let (mut tracer, mut ended) = ground.play(place.story, Some(place.fault(act)));
    let reached = tracer.has_fired();
    let mut wrong = Vec::new();
    if reached && let Some((_, last)) = ended.pop() {
        let step = place.story.commands[ended.len()];
        wrong.extend(judge(&last, place));
        if last.succeeded() {
            wrong.extend(belie(ground, step, place));
        } else if step == "create" && last.status == Ok(1) {
            // It says itself that nothing is left.
            if let Err(hang) = tracer.drain() {
                wrong.push(hang);
            }
            let left: Vec<_> = ground.changes();
            if !left.is_empty() {
                wrong.push(format!("left by create: {left:#?} {last:?}"));
            }
        }
    }
    wrong.extend(ground.clean_up(&mut tracer));
    if !wrong.is_empty() {
        if let Some((_, last)) = ended.pop() {
            wrong.push(format!("{last:?}"));
        }
        Outcome::Wrong(wrong)
    } else if reached {
        Outcome::Fine
    } else {
        Outcome::NotReached
    }
}

/// What is wrong with how the command ended.
fn judge(ended: &Ended, place: &Place) -> Option<String> {
    let errors = ended.said.lines().filter(|line| line.starts_with("urunc: error: ")).count();
    let others = ended.said.lines().filter(|line| !line.starts_with("urunc: ")).count();
    let fine = match ended.status {
        Ok(0) => errors == 0 && others == 0,
        Ok(1) => errors == 1 && others == 0,
        Err(libc::SIGABRT) => is_one_of(place.number, &MEMORY),
        _ => false,
    };
    (!fine).then(|| format!("{ended:?}"))
}

/// What is wrong with the success of `step`.
fn belie(ground: &Ground, step: &str, place: &Place) -> Option<String> {
    let store = Store::open(&ground.scene.root()).unwrap();
    let status = store.read(&ContainerId::new("c").unwrap()).map(|record| record.current_status());
    let fine = match (step, &status) {
        // Init may die once it has been created, for instance because it cannot accept.
        ("create", Ok(Ok(Status::Stopped))) => !place.is_of_urunc(),
        ("create", Ok(Ok(status))) => *status == Status::Created,
        ("start", Ok(Ok(status))) => *status == Status::Running,
        ("kill", Ok(Ok(status))) => *status == Status::Stopped,
        ("delete" | "delete --force", Err(urunc_state::StoreError::NotFound { .. })) => true,
        _ => false,
    };
    (!fine).then(|| format!("{step} succeeded, but the container is {status:?}"))
}
