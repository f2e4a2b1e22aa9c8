//! The specification's seccomp profile for the monitor, on request of the configuration (`runtime.seccomp = "spec"`).
//!
//! A filter of `seccompiler` knows one action besides its default, a profile knows many; so a profile becomes several
//! filters, of whose answers the kernel takes the strictest (seccomp(2)): one for the default action, which lets pass
//! whatever has a rule, and one for each other action.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};
use syscalls::Sysno;

use super::protocol::Failure;
use super::sys;
use crate::bundle::{ArgumentCondition, Comparison, SeccompProfile, SyscallAction, SyscallRule};

/// Why a profile cannot be applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeccompError {
    /// Another process would have to decide.
    #[error(
        "linux.seccomp has the action SCMP_ACT_NOTIFY, which urunc does not support; remove it, or set runtime.seccomp = \
         \"monitor\" in the configuration"
    )]
    Notify,
    /// A filter can be installed only where the ones before it permit that.
    #[error(
        "linux.seccomp has several actions that deny seccomp(2), by which each of them is installed; let one rule have it"
    )]
    Twice,
    /// A system call has six arguments.
    #[error(
        "linux.seccomp has a condition on the argument {index} of {name}; system calls have the arguments 0 to 5"
    )]
    Argument {
        /// The system call.
        name: String,
        /// Which argument.
        index: usize,
    },
    /// No filter can be made for this.
    #[error("cannot compile linux.seccomp; simplify the profile, or set runtime.seccomp = \"monitor\"")]
    Compile(#[from] BackendError),
}

/// A compiled profile.
#[derive(Clone, Debug)]
pub struct Filters {
    /// In the order in which they are installed.
    programs: Vec<BpfProgram>,
    log: bool,
}

/// How many numbers beyond the newest system call of a profile are taken for system calls that it could not know. Programs
/// expect these to be unknown, not forbidden, and then use an older one instead.
const FUTURE: i64 = 32;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

impl Filters {
    /// Compiles `profile` for this host's architecture. Names that no kernel of it has are left out.
    ///
    /// # Errors
    /// [`SeccompError`]
    pub fn compile(profile: &SeccompProfile) -> Result<Self, SeccompError> {
        let arch = TargetArch::try_from(std::env::consts::ARCH)?;
        let default = action(profile.default)?;
        let mut known = Rules::new();
        let mut others: Vec<(SeccompAction, Rules)> = Vec::new();
        for rule in profile.rules.iter().filter(|rule| rule.action != profile.default) {
            let own = action(rule.action)?;
            for (number, conditions) in conditions(rule)? {
                add(&mut known, number, &conditions);
                if own == SeccompAction::Allow {
                    continue;
                }
                let at = others.iter().position(|(action, _)| *action == own).unwrap_or_else(|| {
                    others.push((own.clone(), Rules::new()));
                    others.len() - 1
                });
                if let Some((_, rules)) = others.get_mut(at) {
                    add(rules, number, &conditions);
                }
            }
        }
        if let (SyscallAction::Errno(_), Some(newest)) = (profile.default, known.keys().max().copied()) {
            let unknown = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
            let future: Rules = (newest + 1..=newest + FUTURE).map(|number| (number, Vec::new())).collect();
            known.extend(future.clone());
            others.push((unknown, future));
        }
        // The default's filter last: from then on seccomp(2) itself is subject to it.
        let seccomp = i64::from(Sysno::seccomp.id());
        let denies_seccomp = |action: &SeccompAction, rules: &Rules| {
            !matches!(action, SeccompAction::Log) && rules.contains_key(&seccomp)
        };
        // Likewise one that is about seccomp(2), if it is not subject to the default then.
        let (mut others, last): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|(action, rules)| !denies_seccomp(action, rules));
        if last.len() > 1 {
            return Err(SeccompError::Twice);
        }
        let after = others.len();
        others.extend(last);
        let mut filters: Vec<SeccompFilter> = others
            .into_iter()
            .map(|(action, rules)| SeccompFilter::new(rules, SeccompAction::Allow, action, arch))
            .collect::<Result<_, _>>()?;
        if default != SeccompAction::Allow {
            let at = if known.contains_key(&seccomp) { after } else { filters.len() };
            filters.insert(at, SeccompFilter::new(known, default, SeccompAction::Allow, arch)?);
        }
        let foreign = other_numbers().filter(|_| !filters.is_empty());
        let own = filters.into_iter().map(BpfProgram::try_from);
        let programs = foreign.into_iter().map(Ok).chain(own).collect::<Result<_, _>>()?;
        Ok(Self { programs, log: profile.log })
    }

    /// Subjects this process to the profile, for good. It must have set `no_new_privs`.
    ///
    /// # Errors
    /// What `seccomp(2)` says.
    pub fn install(&self) -> Result<(), Failure> {
        self.programs.iter().try_for_each(|program| {
            sys::install_filter(program, self.log).map_err(|error| {
                Failure::step("cannot apply linux.seccomp; does the profile allow seccomp(2)?", &error)
            })
        })
    }
}

/// Answers ENOSYS to the numbers of x32, which the kernel takes for another way to make x86-64's system calls (asm/unistd.h):
/// a rule knows a call by one number, and what it forbids must not be had by another.
fn other_numbers() -> Option<BpfProgram> {
    const X32_SYSCALL_BIT: u32 = 0x4000_0000;
    // BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JGE | BPF_K and BPF_RET | BPF_K (linux/bpf_common.h).
    const LOAD: u16 = 0x20;
    const JUMP: u16 = 0x35;
    const ANSWER: u16 = 0x06;
    let step = |code, jf, k| sock_filter { code, jt: 0, jf, k };
    let unknown = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
    // The number is the first field of `struct seccomp_data`.
    let program = vec![
        step(LOAD, 0, 0),
        step(JUMP, 1, X32_SYSCALL_BIT),
        step(ANSWER, 0, unknown),
        step(ANSWER, 0, libc::SECCOMP_RET_ALLOW),
    ];
    cfg!(target_arch = "x86_64").then_some(program)
}

fn action(action: SyscallAction) -> Result<SeccompAction, SeccompError> {
    Ok(match action {
        SyscallAction::Allow => SeccompAction::Allow,
        SyscallAction::Log => SeccompAction::Log,
        SyscallAction::Errno(number) => SeccompAction::Errno(number.into()),
        SyscallAction::Trap => SeccompAction::Trap,
        SyscallAction::Trace(number) => SeccompAction::Trace(number.into()),
        SyscallAction::KillThread => SeccompAction::KillThread,
        SyscallAction::KillProcess => SeccompAction::KillProcess,
        SyscallAction::Notify => return Err(SeccompError::Notify),
    })
}

/// The numbers of a rule's system calls, each with the alternatives of conditions under which the rule holds.
fn conditions(rule: &SyscallRule) -> Result<Vec<(i64, Vec<SeccompRule>)>, SeccompError> {
    let mut found = Vec::new();
    for name in &rule.names {
        let Ok(number) = name.parse::<Sysno>() else {
            log::debug!("linux.seccomp names {name}, which this architecture does not have");
            continue;
        };
        found.push((i64::from(number.id()), alternatives(name, &rule.conditions)?));
    }
    Ok(found)
}

/// All conditions hold at once, unless two of them are about one argument: then each holds by itself, as with runc.
fn alternatives(name: &str, all: &[ArgumentCondition]) -> Result<Vec<SeccompRule>, SeccompError> {
    let mut converted = Vec::with_capacity(all.len());
    for ArgumentCondition { index, comparison, value } in all {
        let wrong = || SeccompError::Argument { name: name.to_owned(), index: *index };
        let argument = u8::try_from(*index).ok().filter(|index| *index < 6).ok_or_else(wrong)?;
        let operator = match comparison {
            Comparison::Ne => SeccompCmpOp::Ne,
            Comparison::Lt => SeccompCmpOp::Lt,
            Comparison::Le => SeccompCmpOp::Le,
            Comparison::Eq => SeccompCmpOp::Eq,
            Comparison::Ge => SeccompCmpOp::Ge,
            Comparison::Gt => SeccompCmpOp::Gt,
            Comparison::MaskedEq(mask) => SeccompCmpOp::MaskedEq(*mask),
        };
        converted.push(SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operator, *value)?);
    }
    let twice =
        all.iter().enumerate().any(|(at, one)| all.iter().take(at).any(|earlier| earlier.index == one.index));
    Ok(if converted.is_empty() {
        Vec::new()
    } else if twice {
        converted.into_iter().map(|one| SeccompRule::new(vec![one])).collect::<Result<_, _>>()?
    } else {
        vec![SeccompRule::new(converted)?]
    })
}

/// A system call without any condition matches always, whatever other rules say of it.
fn add(rules: &mut Rules, number: i64, conditions: &[SeccompRule]) {
    match rules.get_mut(&number) {
        None => drop(rules.insert(number, conditions.to_vec())),
        Some(all) if all.is_empty() || conditions.is_empty() => all.clear(),
        Some(all) => all.extend_from_slice(conditions),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer to a system call: each program is run, and the strictest answer counts.
    fn answer(filters: &Filters, name: &str, args: [u64; 6]) -> u32 {
        let number = name.parse::<Sysno>().map_or_else(|_| name.parse().unwrap(), |it| it.id());
        let answers = filters.programs.iter().map(|program| run(program, number, args));
        // Of actions, the smaller one as a signed number is the stricter one (seccomp(2)).
        answers.min_by_key(|value| (value & 0xffff_0000).cast_signed()).unwrap_or(ALLOW)
    }

    /// Classic BPF, as far as filters use it, over `struct seccomp_data` (linux/seccomp.h).
    fn run(program: &BpfProgram, number: i32, args: [u64; 6]) -> u32 {
        let arch: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
        let mut data = vec![number.cast_unsigned(), arch, 0, 0];
        for arg in args {
            data.push(u32::try_from(arg & 0xffff_ffff).unwrap());
            data.push(u32::try_from(arg >> 32).unwrap());
        }
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let it = &program[at];
            at += 1;
            let mut jump = |holds| at += usize::from(if holds { it.jt } else { it.jf });
            match it.code {
                0x20 => accumulator = data[usize::try_from(it.k / 4).unwrap()],
                0x54 => accumulator &= it.k,
                0x05 => at += usize::try_from(it.k).unwrap(),
                0x15 => jump(accumulator == it.k),
                0x25 => jump(accumulator > it.k),
                0x35 => jump(accumulator >= it.k),
                0x06 => return it.k,
                code => panic!("unknown instruction {code:#x}"),
            }
        }
    }

    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;
    const KILL_PROCESS: u32 = 0x8000_0000;

    fn rule(name: &str, action: SyscallAction, conditions: &[ArgumentCondition]) -> SyscallRule {
        SyscallRule { names: vec![name.to_owned()], action, conditions: conditions.to_vec() }
    }

    fn condition(index: usize, comparison: Comparison, value: u64) -> ArgumentCondition {
        ArgumentCondition { index, comparison, value }
    }

    fn compile(default: SyscallAction, rules: Vec<SyscallRule>) -> Result<Filters, SeccompError> {
        Filters::compile(&SeccompProfile { default, rules, log: false })
    }

    #[test]
    fn each_rule_has_its_own_action() {
        let filters = compile(
            SyscallAction::Errno(1),
            vec![
                rule("read", SyscallAction::Allow, &[]),
                rule("clone3", SyscallAction::Errno(38), &[]),
                rule("ptrace", SyscallAction::KillProcess, &[]),
                rule("no_such_call_anywhere", SyscallAction::Allow, &[]),
                rule("write", SyscallAction::Errno(1), &[]),
            ],
        )
        .unwrap();
        for (name, expected) in [
            ("read", ALLOW),
            ("clone3", ERRNO | 38),
            ("ptrace", KILL_PROCESS),
            ("write", ERRNO | 1),
            ("mount", ERRNO | 1),
            // Newer than anything that the profile knows.
            ("436", ERRNO | 38),
            ("9999", ERRNO | 1),
        ] {
            assert_eq!(answer(&filters, name, [0; 6]), expected, "{name}");
        }
    }

    #[test]
    fn a_list_of_what_is_forbidden_works_too() {
        let filters =
            compile(SyscallAction::Allow, vec![rule("mount", SyscallAction::Errno(13), &[])]).unwrap();
        assert_eq!(answer(&filters, "mount", [0; 6]), ERRNO | 13);
        assert_eq!(answer(&filters, "read", [0; 6]), ALLOW);
        if cfg!(target_arch = "x86_64") {
            let by_another_number = (0x4000_0000 | Sysno::mount.id()).to_string();
            assert_eq!(answer(&filters, &by_another_number, [0; 6]), ERRNO | 38);
        }
        let nothing = compile(SyscallAction::Allow, Vec::new()).unwrap();
        assert!(nothing.programs.is_empty());
        let everything = compile(SyscallAction::KillProcess, Vec::new()).unwrap();
        assert_eq!(answer(&everything, "read", [0; 6]), KILL_PROCESS);
    }

    #[test]
    fn a_filter_that_denies_its_like_is_the_last() {
        let (one, two, allow) = (SyscallAction::Errno(1), SyscallAction::Errno(2), SyscallAction::Allow);
        for (default, rules) in [
            (allow, vec![rule("seccomp", one, &[]), rule("ptrace", two, &[])]),
            (
                one,
                vec![
                    rule("seccomp", two, &[]),
                    rule("ptrace", SyscallAction::Trap, &[]),
                    rule("read", allow, &[]),
                ],
            ),
            (one, vec![rule("ptrace", two, &[]), rule("read", allow, &[])]),
        ] {
            let filters = compile(default, rules).unwrap();
            let (last, before) = filters.programs.split_last().unwrap();
            let number = Sysno::seccomp.id();
            assert!(before.len() >= 2 || default == allow);
            assert!(before.iter().all(|program| run(program, number, [0; 6]) == ALLOW));
            assert_ne!(run(last, number, [0; 6]), ALLOW);
        }
        let twice = [(0, one), (1, two)]
            .map(|(value, action)| rule("seccomp", action, &[condition(0, Comparison::Eq, value)]));
        assert!(matches!(compile(allow, twice.to_vec()), Err(SeccompError::Twice)));
    }

    #[test]
    fn conditions_look_at_all_64_bits() {
        let big = 0x1_0000_0005;
        for (comparison, value, yes, no) in [
            (Comparison::Eq, big, big, 5),
            (Comparison::Ne, big, 5, big),
            (Comparison::Lt, big, 7, big),
            (Comparison::Le, big, big, big + 1),
            (Comparison::Gt, big, big + 1, big),
            (Comparison::Ge, big, big, big - 1),
            (Comparison::MaskedEq(0xff_0000_0000), 0x1_0000_0000, big, 5),
        ] {
            let only = [condition(2, comparison, value)];
            let filters = compile(SyscallAction::Errno(1), vec![rule("ioctl", SyscallAction::Allow, &only)]);
            let filters = filters.unwrap();
            let with = |arg| answer(&filters, "ioctl", [0, 0, arg, 0, 0, 0]);
            assert_eq!((with(yes), with(no)), (ALLOW, ERRNO | 1), "{comparison:?}");
        }
    }

    #[test]
    fn conditions_on_one_argument_are_alternatives_and_others_hold_together() {
        let eq = |index, value| condition(index, Comparison::Eq, value);
        let filters = compile(
            SyscallAction::Errno(1),
            vec![
                rule("personality", SyscallAction::Allow, &[eq(0, 0), eq(0, 8)]),
                rule("socket", SyscallAction::Allow, &[eq(0, 1), eq(1, 2)]),
                rule("socket", SyscallAction::Allow, &[eq(0, 7)]),
                rule("kill", SyscallAction::Allow, &[eq(0, 7)]),
                rule("kill", SyscallAction::Allow, &[]),
            ],
        )
        .unwrap();
        for (name, args, allowed) in [
            ("personality", [0, 0], true),
            ("personality", [8, 0], true),
            ("personality", [1, 0], false),
            ("socket", [1, 2], true),
            ("socket", [1, 3], false),
            ("socket", [7, 3], true),
            ("kill", [1, 1], true),
        ] {
            let answer = answer(&filters, name, [args[0], args[1], 0, 0, 0, 0]);
            assert_eq!(answer == ALLOW, allowed, "{name} {args:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let notify = compile(SyscallAction::Allow, vec![rule("read", SyscallAction::Notify, &[])]);
        assert!(matches!(notify, Err(SeccompError::Notify)));
        let seventh = [condition(6, Comparison::Eq, 0)];
        let seventh = compile(SyscallAction::Allow, vec![rule("read", SyscallAction::Trap, &seventh)]);
        assert!(matches!(seventh, Err(SeccompError::Argument { index: 6, .. })));
    }
}
