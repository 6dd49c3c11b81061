//! Builds filters of system calls (seccomp) rule by rule. The first rule for a call decides.

/// The index of the argument that a rule checks in addition to the call's number. Only the low half is compared, which
/// contains all flags and numbers in the rules.
type Argument = u32;

/// A filter under construction.
pub(super) struct Filter(Vec<libc::sock_filter>);

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;
/// No filter on other architectures, whose numbers are not known here.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURE: u32 = 0;

/// Numbers from here on belong to the x32 ABI, another way to make the same calls.
const X32: u32 = 0x4000_0000;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const ANY_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

// In `seccomp_data`, the number is at offset 0, the architecture at 4, and the low halves of the arguments from 16 on.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;
const ARGUMENT_BYTES: u32 = 8;

impl Filter {
    /// Starts a filter that rejects the calls of other architectures.
    pub(super) fn new() -> Self {
        let mut filter =
            vec![statement(LOAD, ARCH), jump(EQUAL, ARCHITECTURE, 1, 0), refuse(), statement(LOAD, NUMBER)];
        filter.extend([jump(AT_LEAST, X32, 0, 1), refuse()]);
        Filter(filter)
    }

    /// Allows these calls with any arguments.
    pub(super) fn allow(mut self, calls: &[libc::c_long]) -> Self {
        self.0.extend(calls.iter().flat_map(|call| [number(*call, 1), allow()]));
        self
    }

    /// Makes these calls fail with "not permitted".
    pub(super) fn refuse(mut self, calls: &[libc::c_long]) -> Self {
        self.0.extend(calls.iter().flat_map(|call| [number(*call, 1), refuse()]));
        self
    }

    /// Makes the call fail as if the kernel did not support it, so that C libraries use its predecessor.
    pub(super) fn unknown(mut self, call: libc::c_long) -> Self {
        self.0.extend([number(call, 1), fail(libc::ENOSYS)]);
        self
    }

    /// Only allows the call with these values.
    pub(super) fn allow_only(self, call: libc::c_long, argument: Argument, values: &[u32]) -> Self {
        self.by_value(call, argument, values, allow(), refuse())
    }

    /// Rejects the call with other values; with these values, the following rules decide.
    pub(super) fn require(mut self, call: libc::c_long, argument: Argument, values: &[u32]) -> Self {
        let count = values.len() as u8;
        self.0.extend([number(call, count + 3), load(argument)]);
        // Jumps behind the remaining comparisons and the rejection.
        self.0.extend(values.iter().zip(0..).map(|(value, index)| jump(EQUAL, *value, count - index, 0)));
        self.0.extend([refuse(), statement(LOAD, NUMBER)]);
        self
    }

    /// Only rejects the call with these values.
    pub(super) fn refuse_only(self, call: libc::c_long, argument: Argument, values: &[u32]) -> Self {
        self.by_value(call, argument, values, refuse(), allow())
    }

    /// Allows the call if any of these bits is set.
    pub(super) fn allow_with(self, call: libc::c_long, argument: Argument, bits: u32) -> Self {
        self.by_bits(call, argument, bits, allow(), refuse())
    }

    /// Rejects the call if any of these bits is set.
    pub(super) fn refuse_with(self, call: libc::c_long, argument: Argument, bits: u32) -> Self {
        self.by_bits(call, argument, bits, refuse(), allow())
    }

    fn by_value(
        mut self,
        call: libc::c_long,
        argument: Argument,
        values: &[u32],
        listed: libc::sock_filter,
        other: libc::sock_filter,
    ) -> Self {
        self.0.extend([number(call, 2 * values.len() as u8 + 2), load(argument)]);
        self.0.extend(values.iter().flat_map(|value| [jump(EQUAL, *value, 0, 1), listed]));
        self.0.push(other);
        self
    }

    fn by_bits(
        mut self,
        call: libc::c_long,
        argument: Argument,
        bits: u32,
        set: libc::sock_filter,
        unset: libc::sock_filter,
    ) -> Self {
        self.0.extend([number(call, 4), load(argument), jump(ANY_BIT, bits, 0, 1), set, unset]);
        self
    }

    /// Ends the filter: allows all other calls.
    pub(super) fn otherwise_allow(self) -> Vec<libc::sock_filter> {
        self.finish(allow())
    }

    /// Ends the filter: rejects all other calls.
    pub(super) fn otherwise_refuse(self) -> Vec<libc::sock_filter> {
        self.finish(refuse())
    }

    fn finish(mut self, last: libc::sock_filter) -> Vec<libc::sock_filter> {
        if ARCHITECTURE == 0 {
            return vec![allow()];
        }
        self.0.push(last);
        self.0
    }
}

/// Skips the next `length` instructions unless the call has this number.
const fn number(call: libc::c_long, length: u8) -> libc::sock_filter {
    jump(EQUAL, call as u32, 0, length)
}

const fn load(argument: Argument) -> libc::sock_filter {
    statement(LOAD, ARGUMENTS + ARGUMENT_BYTES * argument)
}

const fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

const fn jump(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

const fn allow() -> libc::sock_filter {
    statement(RETURN, libc::SECCOMP_RET_ALLOW)
}

const fn refuse() -> libc::sock_filter {
    fail(libc::EPERM)
}

const fn fail(error: i32) -> libc::sock_filter {
    statement(RETURN, libc::SECCOMP_RET_ERRNO | error as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a filter as the kernel does, for calls of this machine.
    fn verdict(filter: &[libc::sock_filter], call: libc::c_long, arguments: [u32; 2]) -> u32 {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let step = filter[at];
            at += 1;
            let jumps = |holds: bool| usize::from(if holds { step.jt } else { step.jf });
            match u32::from(step.code) {
                LOAD => {
                    accumulator = match step.k {
                        ARCH => ARCHITECTURE,
                        NUMBER => call as u32,
                        offset => arguments[((offset - ARGUMENTS) / ARGUMENT_BYTES) as usize],
                    }
                }
                EQUAL => at += jumps(accumulator == step.k),
                AT_LEAST => at += jumps(accumulator >= step.k),
                ANY_BIT => at += jumps(accumulator & step.k != 0),
                RETURN => return step.k,
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn each_rule_decides_its_own_call_only() {
        let allowed = libc::SECCOMP_RET_ALLOW;
        let (refused, unknown) = (refuse().k, fail(libc::ENOSYS).k);
        let filter = || {
            Filter::new()
                .refuse(&[1, 2])
                .unknown(3)
                .allow_only(4, 0, &[7, 8])
                .refuse_only(5, 1, &[7])
                .allow_with(6, 0, 0b11)
                .refuse_with(7, 1, 0b110)
                .allow(&[8])
                .require(10, 0, &[7])
                .require(10, 1, &[8, 9])
                .allow(&[10])
        };
        for (call, arguments, expected) in [
            (1, [0, 0], refused),
            (2, [0, 0], refused),
            (3, [0, 0], unknown),
            (4, [7, 0], allowed),
            (4, [8, 0], allowed),
            (4, [9, 7], refused),
            (5, [0, 7], refused),
            (5, [7, 0], allowed),
            (6, [0b10, 0], allowed),
            (6, [0b100, 0b1], refused),
            (7, [0b110, 0], allowed),
            (7, [0, 0b10], refused),
            (8, [0, 0], allowed),
            (10, [7, 8], allowed),
            (10, [7, 9], allowed),
            (10, [7, 10], refused),
            (10, [8, 9], refused),
            (8 | i64::from(X32) as libc::c_long, [0, 0], refused),
        ] {
            for program in [filter().otherwise_allow(), filter().otherwise_refuse()] {
                assert_eq!(verdict(&program, call, arguments), expected, "{call} {arguments:?}");
            }
        }
        assert_eq!(verdict(&filter().otherwise_allow(), 9, [0, 0]), allowed);
        assert_eq!(verdict(&filter().otherwise_refuse(), 9, [0, 0]), refused);
    }
}
