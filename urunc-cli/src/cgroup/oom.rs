//! Whether the kernel killed somebody in a group because its memory ran out.

use std::fs;

use super::plan::Directory;

/// How many processes of the group were killed for want of memory. Zero, too, where that cannot be told.
#[must_use]
pub fn oom_kills(places: &[Directory]) -> u64 {
    let of_place = |place: &Directory| {
        let file = match &place.v1 {
            None => "memory.events",
            Some(_) if place.has("memory") => "memory.oom_control",
            Some(_) => return None,
        };
        parse(&fs::read_to_string(place.path.join(file)).ok()?)
    };
    places.iter().filter_map(of_place).max().unwrap_or(0)
}

/// The line `oom_kill N`, which both versions have.
fn parse(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
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
}
