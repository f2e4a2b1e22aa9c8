//! QEMU's `key=value,key=value` option syntax. A comma in a value is doubled (qemu(1), "Device options"), so that a
//! value stays one value; keys are ours.

use std::fmt::{Display, Write};

/// One option string in the making.
#[derive(Debug)]
pub(super) struct Options(String);

impl Options {
    /// Starts with the value of the implied first key: a driver, a backend.
    pub(super) fn bare(value: &str) -> Self {
        Self(value.replace(',', ",,"))
    }

    /// Starts with a key and its value.
    pub(super) fn key(key: &'static str, value: impl Display) -> Self {
        Self(String::new()).set(key, value)
    }

    /// Adds a key and its value.
    pub(super) fn set(mut self, key: &'static str, value: impl Display) -> Self {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        let value = value.to_string().replace(',', ",,");
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{key}={value}");
        self
    }
}

impl From<Options> for String {
    fn from(options: Options) -> Self {
        options.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_in_a_value_does_not_start_an_option() {
        let options = Options::bare("local").set("path", "/a,readonly=off").set("id", "x");
        assert_eq!(String::from(options), "local,path=/a,,readonly=off,id=x");
    }
}
