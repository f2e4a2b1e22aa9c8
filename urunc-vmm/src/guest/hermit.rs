//! Hermit: `-ip A -mask M -gateway G env=NAME=value -- ARGUMENTS`, split by shell rules (hermit-os/kernel
//! `src/env/mod.rs`, crate `shlex`). Quoting makes every word exact.
//!
//! The Go implementation writes `ip=A/P gateway=G`, which the kernel reports as unknown and ignores.

use super::{
    Board, Boot, EncodeError, Guest, Item, Platform, PowerButton, VirtioPci, Workload,
    omission::Carries,
    text::{COMMAND_LINE, finish, is_control, refuse, refuse_without_ipv4, variable},
    workload::{Place, only_network, refuse_root, refuse_volumes},
};
use crate::guest::Root;

const GUEST: Guest = Guest::Hermit;

pub(super) fn boot(workload: &Workload, _place: Place<'_>) -> Result<Boot, EncodeError> {
    refuse_volumes(workload, "it mounts none")?;
    if !matches!(workload.root, Root::None | Root::Initrd) {
        return refuse_root(workload, "its application is its initial ramdisk");
    }
    let mut words = Vec::new();
    if let Some(network) = only_network(workload)? {
        refuse_without_ipv4(GUEST, network)?;
        if let Some(ipv4) = network.ipv4() {
            words.push(format!("-ip {} -mask {}", ipv4.address, ipv4.netmask()));
            words.extend(ipv4.gateway.map(|gateway| format!("-gateway {gateway}")));
        }
    }
    for entry in &workload.env {
        let (name, _) = variable(GUEST, entry)?;
        refuse(GUEST, COMMAND_LINE, || Item::Environment(name.to_owned()), entry, is_control)?;
        words.push(quote(&format!("env={entry}")));
    }
    words.push("--".to_owned());
    for (index, argument) in workload.args.iter().enumerate() {
        refuse(GUEST, COMMAND_LINE, || Item::argument(index, argument), argument, is_control)?;
        words.push(quote(argument));
    }
    let platform = Platform {
        board: Board::Common,
        virtio_pci: VirtioPci::Modern,
        power_button: PowerButton::Ignored,
        ..Platform::default()
    };
    let carries = Carries { arguments: true, environment: true, ..Carries::default() };
    finish(GUEST, &words, platform, carries.omitted(workload))
}

/// Quotes a word for a POSIX shell where it needs it.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::guest::tests::{machine, network};

    fn line(workload: &Workload) -> Result<String, EncodeError> {
        let boot = workload.boot(&machine(), crate::Monitor::Qemu, crate::Arch::X86_64)?;
        Ok(boot.command_line.as_str().to_owned())
    }

    #[test]
    fn network_environment_and_arguments_are_told() {
        let workload = Workload {
            networks: vec![network()],
            env: vec!["A=1".to_owned(), "B=x y".to_owned()],
            ..Workload::new(GUEST, vec!["a".to_owned(), "b c".to_owned(), String::new(), "it's".to_owned()])
        };
        assert_eq!(
            line(&workload).unwrap(),
            r"-ip 10.0.0.2 -mask 255.255.255.0 -gateway 10.0.0.1 env=A=1 'env=B=x y' -- a 'b c' '' 'it'\''s'"
        );
    }

    proptest! {
        #[test]
        fn a_shell_reads_back_the_arguments(args in proptest::collection::vec("[ -~é]{0,8}", 0..5)) {
            let line = line(&Workload::new(GUEST, args.clone())).unwrap();
            prop_assert_eq!(unshell(&line)[1..].to_vec(), args);
        }
    }

    /// Splits a line as POSIX shells do, as far as single quotes and backslashes go.
    fn unshell(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
        let mut chars = line.chars();
        while let Some(c) = chars.next() {
            match c {
                '\'' => {
                    quoted = !quoted;
                    word.get_or_insert_default();
                }
                ' ' if !quoted => words.extend(word.take()),
                '\\' if !quoted => word.get_or_insert_default().push(chars.next().unwrap()),
                c => word.get_or_insert_default().push(c),
            }
        }
        words.extend(word);
        words
    }
}
