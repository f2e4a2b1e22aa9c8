//! An error as one sentence for people: the whole chain of causes on one line.

use std::error::Error;

/// `error` and its causes, joined by colons.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::protocol::Failure;

    #[test]
    fn causes_follow_on_the_same_line() {
        let failure = Failure::step("cannot pivot", &std::io::Error::from_raw_os_error(22));
        assert_eq!(chain(&failure), "cannot pivot: Invalid argument (os error 22)");
    }
}
