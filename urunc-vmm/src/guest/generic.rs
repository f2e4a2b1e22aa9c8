//! A kernel of no framework: its command line is the arguments alone, with single spaces between them.
//!
//! No kernel command line has a quoting that every kernel would undo, so an argument that the guest could not
//! tell from several, or from none, is refused. The environment is not passed: there is no place for it that such
//! a kernel would know, and mixing it with the arguments would change them.

use super::{Boot, Character, CommandLine, EncodeError, ExitPort, Guest, Item, Platform, Workload};

const FORMAT: &str = "command line";

pub(super) fn boot(workload: &Workload) -> Result<Boot, EncodeError> {
    let guest = Guest::Generic;
    for (index, argument) in workload.args.iter().enumerate() {
        let item = || Item::argument(index, argument);
        if argument.is_empty() {
            return Err(EncodeError::Empty { item: item(), guest, format: FORMAT });
        }
        if let Some(character) = argument.chars().find(|c| c.is_whitespace() || c.is_control()) {
            let character = Character(character);
            return Err(EncodeError::Character { item: item(), character, guest, format: FORMAT });
        }
    }
    let line = workload.args.join(" ");
    let command_line = CommandLine::new(line).map_err(|error| EncodeError::Character {
        item: Item::Named("the list of arguments"),
        character: error.0,
        guest,
        format: FORMAT,
    })?;
    let platform = Platform { exit_port: ExitPort::DebugExit, ..Platform::default() };
    Ok(Boot { command_line, platform, config: None })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(args: &[&str]) -> Result<String, String> {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        match boot(&Workload::new(Guest::Generic, args)) {
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
            if let Ok(boot) = boot(&Workload::new(Guest::Generic, args.clone())) {
                let words: Vec<_> =
                    boot.command_line.as_str().split(' ').filter(|word| !word.is_empty()).collect();
                prop_assert_eq!(words, args);
            }
        }
    }
}
