//! Whether, and when, the memory of a group ran out.
//!
//! v2 counts and announces in `memory.events`. v1 counts in `memory.oom_control` and announces through an eventfd
//! (`Documentation/admin-guide/cgroup-v1/memory.rst`, "OOM Control"), at the removal of the group, too.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};

use super::make::write_file;
use super::plan::Directory;
use crate::procfs;

/// How many processes of the group were killed for want of memory. Zero, too, where that cannot be told.
#[must_use]
pub fn oom_kills(places: &[Directory]) -> u64 {
    let of_place = |place: &Directory| parse(&procfs::read_to_string(counter(place)?).ok()?);
    places.iter().filter_map(of_place).max().unwrap_or(0)
}

/// The file that counts, if the directory has one.
fn counter(place: &Directory) -> Option<PathBuf> {
    let file = match &place.v1 {
        None => "memory.events",
        Some(_) if place.has("memory") => "memory.oom_control",
        Some(_) => return None,
    };
    Some(place.path.join(file)).filter(|file| file.exists())
}

/// The line `oom_kill N`, which both versions have.
fn parse(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

/// Notices each time that the memory of a group runs out.
#[derive(Debug)]
pub struct OomWatch {
    counter: PathBuf,
    /// How many kills have been told.
    seen: u64,
    announcement: Announcement,
}

#[derive(Debug)]
enum Announcement {
    /// Something exceptional about this file.
    V2(File),
    /// An eventfd that was registered for this file.
    V1(OwnedFd),
}

impl OomWatch {
    /// Watches a group from now on. `None` if it has no memory controller.
    ///
    /// # Errors
    /// What the system says when the announcements cannot be asked for.
    pub fn new(places: &[Directory]) -> io::Result<Option<Self>> {
        let Some((place, counter)) = places.iter().find_map(|place| Some((place, counter(place)?))) else {
            return Ok(None);
        };
        let file = File::open(&counter)?;
        let announcement = if place.v1.is_none() {
            Announcement::V2(file)
        } else {
            let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            let registration = format!("{} {}", event.as_raw_fd(), file.as_raw_fd());
            write_file(&place.path.join("cgroup.event_control"), registration.as_bytes())?;
            Announcement::V1(event)
        };
        let mut watch = Self { counter, seen: 0, announcement };
        watch.seen = watch.count().unwrap_or(0);
        Ok(Some(watch))
    }

    /// What to wait for.
    #[must_use]
    pub fn poll(&self) -> PollFd<'_> {
        match &self.announcement {
            Announcement::V2(file) => PollFd::new(file, PollFlags::PRI),
            Announcement::V1(event) => PollFd::new(event, PollFlags::IN),
        }
    }

    /// How often memory has run out since the last call.
    pub fn times(&mut self) -> u64 {
        let count = self.count();
        match &self.announcement {
            Announcement::V2(_) => {
                let count = count.unwrap_or(self.seen);
                let new = count.saturating_sub(self.seen);
                self.seen = count;
                new
            }
            Announcement::V1(event) => {
                // It comes before the kill that it announces has been counted, so it counts itself.
                let mut times = [0; 8];
                let announced = rustix::io::read(event, &mut times[..]).is_ok() && count.is_some();
                if announced { u64::from_ne_bytes(times) } else { 0 }
            }
        }
    }

    fn count(&self) -> Option<u64> {
        if let Announcement::V2(file) = &self.announcement {
            // Reading this very descriptor arms its announcement.
            return parse(&super::freezer::text(file).ok()?);
        }
        parse(&fs::read_to_string(&self.counter).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_say_it_in_the_same_words() {
        assert_eq!(parse("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n"), Some(2));
        assert_eq!(parse("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"), Some(1));
        assert_eq!(parse(""), None);
    }

    #[test]
    fn kills_since_the_last_look_are_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let place = Directory { path: dir.path().into(), mount: dir.path().into(), v1: None };
        assert!(OomWatch::new(std::slice::from_ref(&place)).unwrap().is_none());
        let set =
            |kills: u32| fs::write(dir.path().join("memory.events"), format!("oom_kill {kills}\n")).unwrap();
        set(1);
        let mut watch = OomWatch::new(&[place]).unwrap().unwrap();
        assert_eq!(watch.times(), 0);
        set(3);
        assert_eq!((watch.times(), watch.times()), (2, 0));
    }
}
