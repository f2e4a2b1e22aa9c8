//! From the flags of `update`, or the file that it is given, to limits.

use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;

use serde_json::json;

use crate::args::UpdateArgs;
use crate::bundle::ResourceError;
use crate::cgroup::Resources;

/// Why it is not known what is to be changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The file.
    #[error("cannot read the limits from {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What it holds, or what a flag says.
    #[error(transparent)]
    Resources(#[from] ResourceError),
    /// A size that is none.
    #[error("--{flag} is {value:?}; use a number of bytes, one with a unit such as 512m, or -1 for no limit")]
    Size {
        /// The flag.
        flag: &'static str,
        /// Its value.
        value: String,
    },
    /// A feature of some processors.
    #[error("--{0} needs Intel RDT, which urunc does not support; leave it out")]
    Rdt(&'static str),
}

/// What is to be changed.
pub(super) fn resources(args: &UpdateArgs) -> Result<Resources, UpdateError> {
    let Some(path) = &args.resources else { return from_flags(args) };
    let mut text = Vec::new();
    let read = match path.to_str() {
        Some("-") => io::stdin().lock().read_to_end(&mut text).map(drop),
        _ => fs::read(path).map(|read| text = read),
    };
    read.map_err(|source| UpdateError::Read { path: path.clone(), source })?;
    Ok(Resources::from_json(&text)?)
}

fn from_flags(args: &UpdateArgs) -> Result<Resources, UpdateError> {
    for (flag, given) in [("l3-cache-schema", &args.l3_cache_schema), ("mem-bw-schema", &args.mem_bw_schema)]
    {
        if given.is_some() {
            return Err(UpdateError::Rdt(flag));
        }
    }
    // The same words as in a specification, so that the same rules hold.
    let document = json!({
        "memory": {
            "limit": size("memory", args.memory.as_deref())?,
            "reservation": size("memory-reservation", args.memory_reservation.as_deref())?,
            "swap": size("memory-swap", args.memory_swap.as_deref())?,
            "kernelTCP": size("kernel-memory-tcp", args.kernel_memory_tcp.as_deref())?,
        },
        "cpu": {
            "shares": args.cpu_share,
            "quota": args.cpu_quota,
            "period": args.cpu_period,
            "burst": args.cpu_burst,
            "realtimeRuntime": args.cpu_rt_runtime,
            "realtimePeriod": args.cpu_rt_period,
            "cpus": args.cpuset_cpus,
            "mems": args.cpuset_mems,
            "idle": args.cpu_idle,
        },
        "pids": {"limit": args.pids_limit.unwrap_or(0)},
        "blockIO": {"weight": args.blkio_weight},
    });
    Ok(Resources::from_json(document.to_string().as_bytes())?)
}

fn size(flag: &'static str, value: Option<&str>) -> Result<Option<i64>, UpdateError> {
    value
        .map(|value| bytes(value).ok_or_else(|| UpdateError::Size { flag, value: value.to_owned() }))
        .transpose()
}

/// A size as Docker and runc write it: `67108864`, `64m`, `1.5GiB`, `512 kb`; units are powers of 1024. -1 is no limit.
fn bytes(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let power = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit) {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let factor = 1024_i64.pow(power);
    // Whole and fraction apart, so that nothing is rounded.
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: i64 = whole.parse().ok()?;
    let digits = u32::try_from(fraction.len()).ok()?;
    let scale = 10_i64.checked_pow(digits)?;
    let fraction: i64 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let part = i128::from(fraction) * i128::from(factor) / i128::from(scale);
    whole.checked_mul(factor)?.checked_add(i64::try_from(part).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Limit;

    #[test]
    fn sizes_are_read_as_runc_reads_them() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("1024", Some(1024)),
            ("10b", Some(10)),
            ("32k", Some(32 << 10)),
            ("32 KB", Some(32 << 10)),
            ("64m", Some(64 << 20)),
            ("64MiB", Some(64 << 20)),
            ("1.5g", Some(3 << 29)),
            ("2t", Some(2 << 40)),
            ("9999999p", None),
            ("-2", None),
            ("m", None),
            ("1.2.3k", None),
            ("5 parsecs", None),
            ("", None),
        ] {
            assert_eq!(bytes(text), expected, "{text:?}");
        }
    }

    #[test]
    fn flags_say_what_a_file_would() {
        let args = UpdateArgs {
            memory: Some("64m".into()),
            memory_swap: Some("-1".into()),
            cpu_quota: Some(-1),
            pids_limit: Some(20),
            cpuset_cpus: Some("0".into()),
            ..UpdateArgs::default()
        };
        let changed = resources(&args).unwrap();
        assert_eq!(changed.memory.limit, Some(Limit::At(64 << 20)));
        assert_eq!(
            (changed.memory.swap, changed.cpu.quota),
            (Some(Limit::Unlimited), Some(Limit::Unlimited))
        );
        assert_eq!((changed.pids, changed.cpu.cpus.as_deref()), (Some(Limit::At(20)), Some("0")));
        assert!(resources(&UpdateArgs::default()).unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (args, says) in [
            (UpdateArgs { memory: Some("lots".into()), ..UpdateArgs::default() }, "--memory is \"lots\""),
            (UpdateArgs { mem_bw_schema: Some("MB:0=1".into()), ..UpdateArgs::default() }, "Intel RDT"),
            (UpdateArgs { resources: Some("/nonexistent".into()), ..UpdateArgs::default() }, "/nonexistent"),
        ] {
            let message = resources(&args).unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        }
    }
}
