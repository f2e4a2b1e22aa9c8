//! A kernel of no framework: its command line is the arguments alone, with single spaces between them.
//!
//! No kernel command line has a quoting that every kernel would undo, so an argument that the guest could not
//! tell from several, or from none, is refused. The environment is not passed: there is no place for it that such
//! a kernel would know, and mixing it with the arguments would change them.

use super::{
    Boot, EncodeError, ExitPort, Guest, Item, Platform, Workload,
    omission::Carries,
    text::{COMMAND_LINE, finish, refuse, refuse_empty},
};

const GUEST: Guest = Guest::Generic;

pub(super) fn boot(workload: &Workload) -> Result<Boot, EncodeError> {
    for (index, argument) in workload.args.iter().enumerate() {
        let item = || Item::argument(index, argument);
        refuse_empty(GUEST, COMMAND_LINE, item, argument)?;
        refuse(GUEST, COMMAND_LINE, item, argument, |c| c.is_whitespace() || c.is_control())?;
    }
    // Whoever writes such a kernel is taken to know the board: how to power it off, and that its button may be
    // pressed. `isa-debug-exit` is the one way to give QEMU an exit status.
    let platform = Platform { exit_port: ExitPort::DebugExit, ..Platform::default() };
    let omitted = Carries { arguments: true, ..Carries::default() }.omitted(workload);
    finish(GUEST, &workload.args, platform, omitted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(args: &[&str]) -> Result<String, String> {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        match boot(&Workload::new(GUEST, args)) {
            Ok(boot) => Ok(boot.command_line.as_str().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_command_line_is_the_arguments() {
        assert_eq!(line(&["one", "exit=3"]).unwrap(), "one exit=3");
        assert_eq!(line(&[]).unwrap(), "");
    }

    /// Weakness 7 of the monitors reference: `"b c"` became two words.
    #[test]
    fn an_argument_that_would_become_another_number_of_words_is_refused_by_name() {
        for (argument, message) in [
            (
                "b c",
                "argument 1 (\"b c\") contains a space, which the command line of a generic guest cannot carry",
            ),
            (
                "b\nc",
                "argument 1 (\"b\\nc\") contains a newline, which the command line of a generic guest cannot carry",
            ),
            ("", "argument 1 (\"\") is empty, which the command line of a generic guest cannot carry"),
        ] {
            assert_eq!(line(&["a", argument]).unwrap_err(), message);
        }
        assert!(line(&["a\0"]).unwrap_err().contains("a NUL byte"));
        assert!(line(&["a\u{a0}b"]).unwrap_err().contains("U+00A0"));
    }

    proptest! {
        #[test]
        fn splitting_the_line_at_spaces_gives_back_the_arguments(args: Vec<String>) {
            if let Ok(boot) = boot(&Workload::new(GUEST, args.clone())) {
                let words: Vec<_> =
                    boot.command_line.as_str().split(' ').filter(|word| !word.is_empty()).collect();
                prop_assert_eq!(words, args);
            }
        }
    }
}
