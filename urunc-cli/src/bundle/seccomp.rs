//! `linux.seccomp` as plain data. Whether it is applied is the configuration's decision, so nothing is refused here.

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall,
};

/// What happens to a system call (seccomp(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyscallAction {
    /// It is made.
    Allow,
    /// It is made and logged.
    Log,
    /// It fails with this number.
    Errno(u16),
    /// The process gets SIGSYS.
    Trap,
    /// A tracer is told.
    Trace(u16),
    /// The thread ends.
    KillThread,
    /// The process ends.
    KillProcess,
    /// Another process decides.
    Notify,
}

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Not equal to.
    Ne,
    /// Less than.
    Lt,
    /// Less than or equal to.
    Le,
    /// Equal to.
    Eq,
    /// Greater than or equal to.
    Ge,
    /// Greater than.
    Gt,
    /// Equal to, in the bits of this mask.
    MaskedEq(u64),
}

/// A condition on an argument of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArgumentCondition {
    /// Which argument, from 0.
    pub index: usize,
    /// How it is compared.
    pub comparison: Comparison,
    /// With what.
    pub value: u64,
}

/// What happens to some system calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyscallRule {
    /// Their names.
    pub names: Vec<String>,
    /// What happens.
    pub action: SyscallAction,
    /// Under which conditions, all of which must hold.
    pub conditions: Vec<ArgumentCondition>,
}

/// A seccomp profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeccompProfile {
    /// What happens to system calls without a rule.
    pub default: SyscallAction,
    /// The rules.
    pub rules: Vec<SyscallRule>,
    /// Whether everything but "allow" is logged.
    pub log: bool,
}

/// "Operation not permitted", which runtimes answer where a profile gives no number.
const EPERM: u32 = 1;

pub(super) fn convert(profile: &LinuxSeccomp) -> SeccompProfile {
    let flags = profile.flags().as_deref().unwrap_or_default();
    SeccompProfile {
        default: action(profile.default_action(), profile.default_errno_ret()),
        rules: profile.syscalls().iter().flatten().map(rule).collect(),
        log: flags.contains(&LinuxSeccompFilterFlag::SeccompFilterFlagLog),
    }
}

fn rule(rule: &LinuxSyscall) -> SyscallRule {
    let conditions = rule.args().iter().flatten().map(|arg| {
        let (first, second) = (arg.value(), arg.value_two().unwrap_or(0));
        let (comparison, value) = match arg.op() {
            LinuxSeccompOperator::ScmpCmpNe => (Comparison::Ne, first),
            LinuxSeccompOperator::ScmpCmpLt => (Comparison::Lt, first),
            LinuxSeccompOperator::ScmpCmpLe => (Comparison::Le, first),
            LinuxSeccompOperator::ScmpCmpEq => (Comparison::Eq, first),
            LinuxSeccompOperator::ScmpCmpGe => (Comparison::Ge, first),
            LinuxSeccompOperator::ScmpCmpGt => (Comparison::Gt, first),
            LinuxSeccompOperator::ScmpCmpMaskedEq => (Comparison::MaskedEq(first), second),
        };
        ArgumentCondition { index: arg.index(), comparison, value }
    });
    SyscallRule {
        names: rule.names().clone(),
        action: action(rule.action(), rule.errno_ret()),
        conditions: conditions.collect(),
    }
}

fn action(action: LinuxSeccompAction, number: Option<u32>) -> SyscallAction {
    // The kernel has 16 bits for it (SECCOMP_RET_DATA).
    let number = u16::try_from(number.unwrap_or(EPERM)).unwrap_or(u16::MAX);
    match action {
        LinuxSeccompAction::ScmpActAllow => SyscallAction::Allow,
        LinuxSeccompAction::ScmpActLog => SyscallAction::Log,
        LinuxSeccompAction::ScmpActErrno => SyscallAction::Errno(number),
        LinuxSeccompAction::ScmpActTrap => SyscallAction::Trap,
        LinuxSeccompAction::ScmpActTrace => SyscallAction::Trace(number),
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => SyscallAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => SyscallAction::KillProcess,
        LinuxSeccompAction::ScmpActNotify => SyscallAction::Notify,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_profile_of_an_engine_is_understood() {
        let profile: LinuxSeccomp = serde_json::from_value(json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls": [
                {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
                {
                    "names": ["clone"],
                    "action": "SCMP_ACT_ALLOW",
                    "args": [{"index": 0, "value": 2_114_060_288_u64, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
                },
            ],
        }))
        .unwrap();
        let profile = convert(&profile);
        assert_eq!((profile.default, profile.log), (SyscallAction::Errno(1), true));
        assert_eq!(profile.rules[0].names, ["read", "write"]);
        assert_eq!(profile.rules[1].action, SyscallAction::Errno(38));
        let masked =
            ArgumentCondition { index: 0, comparison: Comparison::MaskedEq(2_114_060_288), value: 0 };
        assert_eq!(profile.rules[2].conditions, [masked]);
    }
}
