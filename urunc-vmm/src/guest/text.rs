//! Checks that every text format needs.

use super::{Boot, Character, CommandLine, EncodeError, Guest, Item, Network, Omission, Platform};

/// The format that most values end up in.
pub(super) const COMMAND_LINE: &str = "command line";

/// Refuses a value with a character that `cannot` be carried.
pub(super) fn refuse(
    guest: Guest,
    format: &'static str,
    item: impl Fn() -> Item,
    value: &str,
    cannot: impl Fn(char) -> bool,
) -> Result<(), EncodeError> {
    match value.chars().find(|&c| cannot(c)) {
        Some(character) => {
            Err(EncodeError::Character { item: item(), character: Character(character), guest, format })
        }
        None => Ok(()),
    }
}

/// Refuses an empty value.
pub(super) fn refuse_empty(
    guest: Guest,
    format: &'static str,
    item: impl Fn() -> Item,
    value: &str,
) -> Result<(), EncodeError> {
    if value.is_empty() { Err(EncodeError::Empty { item: item(), guest, format }) } else { Ok(()) }
}

/// Splits an environment entry for messages and formats that name the variable.
pub(super) fn variable(guest: Guest, entry: &str) -> Result<(&str, &str), EncodeError> {
    match entry.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name, value)),
        _ => Err(EncodeError::Unsupported {
            what: "an environment entry that is not NAME=value".to_owned(),
            guest,
            remedy: "correct the process's env",
        }),
    }
}

/// Refuses addresses of which none can be told.
pub(super) fn refuse_without_ipv4(guest: Guest, network: &Network) -> Result<(), EncodeError> {
    match network.addresses.first() {
        Some(address) if network.ipv4_address().is_none() => Err(EncodeError::Unsupported {
            what: format!("the IPv6 address {address}"),
            guest,
            remedy: "its format has IPv4 addresses only",
        }),
        _ => Ok(()),
    }
}

/// Joins words and checks the line as a whole.
pub(super) fn finish(
    guest: Guest,
    words: &[String],
    platform: Platform,
    omitted: Vec<Omission>,
) -> Result<Boot, EncodeError> {
    let command_line = CommandLine::new(words.join(" ")).map_err(|error| EncodeError::Character {
        item: Item::Named("the command line"),
        character: error.0,
        guest,
        format: COMMAND_LINE,
    })?;
    Ok(Boot { command_line, platform, config: None, omitted })
}

/// A control character, which no command line carries.
pub(super) fn is_control(c: char) -> bool {
    c.is_control()
}
