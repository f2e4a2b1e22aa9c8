//! Device rules on cgroup v2, which has no files for them: a BPF program that the kernel asks before a device is opened
//! or made (`BPF_PROG_TYPE_CGROUP_DEVICE`, since Linux 4.15).
//!
//! The program starts with the letters that are asked for and walks the rules from the last to the first. A matching rule
//! that permits strikes out its letters, and with none left the answer is yes; one that forbids a letter still open means
//! no. So each letter is decided by the last rule about it, as on v1.

use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::make::MakeError;
use super::resources::{DeviceRule, NodeKind, Permission};
use super::sys;

/// One instruction of BPF, as `struct bpf_insn` in `linux/bpf.h` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high one (little endian).
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// Operation codes (`linux/bpf.h`, `linux/bpf_common.h`): class, operation and source of the operand.
mod code {
    /// `BPF_LDX | BPF_MEM | BPF_W`
    pub(super) const LOAD_WORD: u8 = 0x61;
    /// `BPF_ALU | BPF_AND | BPF_K`
    pub(super) const AND: u8 = 0x54;
    /// `BPF_ALU | BPF_RSH | BPF_K`
    pub(super) const SHIFT_RIGHT: u8 = 0x74;
    /// `BPF_ALU | BPF_MOV | BPF_K`
    pub(super) const SET: u8 = 0xb4;
    /// `BPF_ALU | BPF_MOV | BPF_X`
    pub(super) const COPY: u8 = 0xbc;
    /// `BPF_JMP32 | BPF_JNE | BPF_K`
    pub(super) const JUMP_UNLESS: u8 = 0x56;
    /// `BPF_JMP32 | BPF_JEQ | BPF_K`
    pub(super) const JUMP_IF: u8 = 0x16;
    /// `BPF_JMP | BPF_EXIT`
    pub(super) const EXIT: u8 = 0x95;
}

/// Registers: what the program returns, gets, and keeps.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const LETTERS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// `BPF_DEVCG_*` in `linux/bpf.h`
const BLOCK: i32 = 1;
const CHAR: i32 = 2;

/// Gives the group at `path` a program for `rules`. Without rules everything is permitted.
pub(super) fn attach(path: &Path, rules: &[DeviceRule]) -> Result<(), MakeError> {
    if rules.is_empty() {
        return Ok(());
    }
    let attach = || -> io::Result<()> {
        let group =
            rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        sys::attach_device_program(&group, &program(rules))
    };
    attach().map_err(|source| MakeError::Limit {
        field: "linux.resources.devices",
        value: "a BPF program".to_owned(),
        file: path.to_owned(),
        source,
    })
}

fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: destination | source << 4, offset, immediate }
}

fn answer(permission: Permission) -> [Instruction; 2] {
    let value = match permission {
        Permission::Allow => 1,
        Permission::Deny => 0,
    };
    [instruction(code::SET, RESULT, 0, 0, value), instruction(code::EXIT, 0, 0, 0, 0)]
}

fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    // struct bpf_cgroup_dev_ctx { access_type: kind in the low half and letters in the high one, major, minor }
    let mut program = vec![
        instruction(code::LOAD_WORD, KIND, CONTEXT, 0, 0),
        instruction(code::COPY, LETTERS, KIND, 0, 0),
        instruction(code::AND, KIND, 0, 0, 0xffff),
        instruction(code::SHIFT_RIGHT, LETTERS, 0, 0, 16),
        instruction(code::LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(code::LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.iter().rev() {
        program.extend(checks(rule));
    }
    program.extend(answer(Permission::Allow));
    program
}

/// One rule: unless all of its conditions hold, on to the next.
fn checks(rule: &DeviceRule) -> Vec<Instruction> {
    let letters = letters(&rule.access);
    let verdict = match rule.permission {
        Permission::Allow => vec![
            instruction(code::AND, LETTERS, 0, 0, !letters),
            instruction(code::JUMP_UNLESS, LETTERS, 0, 2, 0),
        ],
        Permission::Deny => vec![
            instruction(code::COPY, SCRATCH, LETTERS, 0, 0),
            instruction(code::AND, SCRATCH, 0, 0, letters),
            instruction(code::JUMP_IF, SCRATCH, 0, 2, 0),
        ],
    };
    let mut conditions = Vec::new();
    match rule.kind {
        NodeKind::Any => {}
        NodeKind::Block => conditions.push((KIND, BLOCK)),
        NodeKind::Char => conditions.push((KIND, CHAR)),
    }
    conditions.extend(rule.major.map(|major| (MAJOR, major.cast_signed())));
    conditions.extend(rule.minor.map(|minor| (MINOR, minor.cast_signed())));
    let mut body = Vec::new();
    // A jump counts from the instruction after it.
    let mut left = conditions.len() + verdict.len() + 2;
    for (register, value) in conditions {
        left -= 1;
        body.push(instruction(
            code::JUMP_UNLESS,
            register,
            0,
            i16::try_from(left).unwrap_or(i16::MAX),
            value,
        ));
    }
    body.extend(verdict);
    body.extend(answer(rule.permission));
    body
}

/// `BPF_DEVCG_ACC_*` in `linux/bpf.h`
fn letters(access: &str) -> i32 {
    let bit = |letter, value| if access.is_empty() || access.contains(letter) { value } else { 0 };
    bit('m', 1) | bit('r', 2) | bit('w', 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the kernel would answer.
    fn run(program: &[Instruction], kind: u32, letters: u32, major: u32, minor: u32) -> u32 {
        let context = [letters << 16 | kind, major, minor];
        let mut registers = [0u32; 11];
        let mut at = 0;
        loop {
            let Instruction { code, registers: pair, offset, immediate } = program[at];
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            let value = immediate.cast_unsigned();
            at += 1;
            let jump = match code {
                code::LOAD_WORD => {
                    registers[to] = context[usize::try_from(offset / 4).unwrap()];
                    false
                }
                code::AND => {
                    registers[to] &= value;
                    false
                }
                code::SHIFT_RIGHT => {
                    registers[to] >>= value;
                    false
                }
                code::SET => {
                    registers[to] = value;
                    false
                }
                code::COPY => {
                    registers[to] = registers[from];
                    false
                }
                code::JUMP_UNLESS => registers[to] != value,
                code::JUMP_IF => registers[to] == value,
                code::EXIT => return registers[0],
                other => panic!("{other:#x}"),
            };
            if jump {
                at += usize::try_from(offset).unwrap();
            }
        }
    }

    /// Each letter is decided by the last rule about it.
    fn expected(rules: &[DeviceRule], kind: i32, asked: i32, major: u32, minor: u32) -> bool {
        [1, 2, 4].into_iter().filter(|letter| asked & letter != 0).all(|letter| {
            let last = rules.iter().rev().find(|rule| {
                let kinds = match rule.kind {
                    NodeKind::Any => true,
                    NodeKind::Block => kind == BLOCK,
                    NodeKind::Char => kind == CHAR,
                };
                kinds
                    && letters(&rule.access) & letter != 0
                    && rule.major.is_none_or(|number| number == major)
                    && rule.minor.is_none_or(|number| number == minor)
            });
            last.is_none_or(|rule| rule.permission == Permission::Allow)
        })
    }

    fn any_rule() -> impl Strategy<Value = DeviceRule> {
        let number = || prop::option::of(0..3u32);
        (any::<bool>(), 0..3usize, number(), number(), "r?w?m?").prop_map(
            |(allow, kind, major, minor, access)| DeviceRule {
                permission: if allow { Permission::Allow } else { Permission::Deny },
                kind: [NodeKind::Any, NodeKind::Block, NodeKind::Char][kind],
                major,
                minor,
                access,
            },
        )
    }

    proptest! {
        #[test]
        fn the_program_says_what_the_rules_say(
            rules in prop::collection::vec(any_rule(), 0..6),
            kind in 1..3i32,
            asked in 1..8i32,
            major in 0..3u32,
            minor in 0..3u32,
        ) {
            let answer = run(&program(&rules), kind.cast_unsigned(), asked.cast_unsigned(), major, minor);
            prop_assert_eq!(answer == 1, expected(&rules, kind, asked, major, minor));
        }
    }
}
