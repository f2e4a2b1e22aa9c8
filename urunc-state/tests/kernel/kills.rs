//! F1, B19: a crash in the middle of a write left a torn `state.json`, and readers could see a part of it.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use urunc_state::Store;

use crate::helper::{fill, number};
use crate::support::{container, id, now, tree};

pub(crate) fn a_writer_killed_thousands_of_times() {
    // Memory makes for many writes between two kills, a disk for many kills within a write.
    for (place, kills) in [("/dev/shm", 2500), ("/var/tmp", 300)] {
        if Path::new(place).is_dir() {
            kill_writers(place, kills);
        } else {
            eprintln!("skipped in part: there is no {place}");
        }
    }
}

fn kill_writers(place: &str, kills: u64) {
    let directory = tempfile::tempdir_in(place).unwrap();
    let store = Store::open(directory.path()).unwrap();
    let (origin, mut record) = container("a");
    fill(&mut record, 0);
    drop(store.create(&origin, record).unwrap());

    let (done, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    let written = thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = 0;
                while !done.load(Ordering::Relaxed) {
                    let n = number(&store.read(&id("a")).unwrap());
                    assert!(n >= last, "record {n} after record {last}");
                    last = n;
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // Also when this thread panics: the readers must end.
        let _end = Finally(&done);
        let (mut last, mut longest) = (0, SHORTEST);
        for kill in 0..kills {
            run_and_kill(directory.path(), life(longest, kill));
            // The next command gets the lock at once and finds the last committed record.
            let n = number(store.lock(&id("a"), now()).unwrap().record());
            assert!(n >= last, "record {n} after record {last}");
            // Whatever a write takes here: about every second writer shall complete one at least.
            longest = if n == last { longest * 2 } else { (longest / 2).max(SHORTEST) };
            last = n;
        }
        last
    });
    assert!(written >= 10, "only {written} records were written, so nothing was tested");
    let left = tree(directory.path()).len() - 3;
    let swept = store.sweep().unwrap();
    assert_eq!(swept.removed.len(), left);
    assert_eq!(tree(directory.path()), ["a", "a/origin.json", "a/state.json"]);
    let reads = reads.into_inner();
    eprintln!("{place}: {kills} kills, {written} records, {reads} reads, {left} temporary files swept");
}

/// The time within which a writer is killed at first; a slow disk needs more.
const SHORTEST: Duration = Duration::from_millis(1);

/// A part of `longest`, spread evenly over the kills but without a pattern.
fn life(longest: Duration, kill: u64) -> Duration {
    longest * u32::try_from(kill * 618_034 % 1_000_000).unwrap() / 1_000_000
}

/// Lets a writer write for a little while.
fn run_and_kill(root: &Path, life: Duration) {
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .args(["helper", "writer"])
        .arg(root)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let ready = writer.stdout.take().unwrap().read_exact(&mut [0]);
    thread::sleep(life);
    writer.kill().unwrap();
    let status = writer.wait().unwrap();
    ready.unwrap();
    assert_eq!(status.code(), None, "the writer ended by itself");
}

struct Finally<'a>(&'a AtomicBool);

impl Drop for Finally<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
