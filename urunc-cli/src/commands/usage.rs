//! What becomes of a command line that cannot be understood: where its error is to be logged, and as which sentence.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::args::LogFormat;

/// The log file and its format, as far as a broken command line tells. The options of runtimes' callers come first.
pub(super) fn log_of(line: impl Iterator<Item = OsString>) -> Option<(PathBuf, LogFormat)> {
    let (mut path, mut format) = (None, LogFormat::Text);
    let mut words = line.skip(1);
    while let Some(word) = words.next() {
        let text = word.to_string_lossy().into_owned();
        let (name, attached) = match text.split_once('=') {
            Some((name, value)) => (name, Some(OsString::from(value))),
            None => (text.as_str(), None),
        };
        match name {
            "--log" => path = attached.or_else(|| words.next()).map(PathBuf::from),
            "--log-format" => {
                let json = attached.or_else(|| words.next()).is_some_and(|value| value == "json");
                format = if json { LogFormat::Json } else { LogFormat::Text };
            }
            _ => {}
        }
    }
    path.map(|path| (path, format))
}

/// The first paragraph of what is printed, on one line and without its label.
pub(super) fn sentence(printed: &str) -> String {
    let paragraph = printed.split("\n\n").next().unwrap_or_default();
    let words = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    words.strip_prefix("error: ").unwrap_or(&words).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(line: &str) -> Option<(PathBuf, LogFormat)> {
        log_of(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_log_file_of_a_broken_command_line_is_found() {
        let expected = Some((PathBuf::from("/b/log.json"), LogFormat::Json));
        assert_eq!(log("urunc --root /r --log /b/log.json --log-format json frobnicate"), expected);
        assert_eq!(log("urunc --log-format=json --log=/b/log.json create"), expected);
        assert_eq!(log("urunc --log /x --log-format xml list"), Some(("/x".into(), LogFormat::Text)));
        assert_eq!(log("urunc create"), None);
        assert_eq!(log("urunc create --log"), None);
    }

    #[test]
    fn the_sentence_is_one_line() {
        let printed = "error: the following required arguments were not provided:\n  <ID>\n\nUsage: urunc create <ID>\n";
        assert_eq!(sentence(printed), "the following required arguments were not provided: <ID>");
    }
}
