//! The flags of `update`, which are runc's.

use std::path::PathBuf;

/// `urunc update`
#[derive(Debug, Default, clap::Args)]
pub struct UpdateArgs {
    /// File with the changed limits as JSON, in the shape of `linux.resources`; `-` is standard input. The other flags then
    /// do not count
    #[arg(short, long, value_name = "FILE")]
    pub resources: Option<PathBuf>,

    /// Memory: bytes, or with a unit (`512m`); -1 for no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory: Option<String>,

    /// Memory that reclaim should leave
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory_reservation: Option<String>,

    /// Memory and swap together
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,

    /// Relative weight of processor time
    #[arg(long, value_name = "SHARES")]
    pub cpu_share: Option<u64>,

    /// Microseconds of processor time in each period; -1 for no limit
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,

    /// Length of a period
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_period: Option<u64>,

    /// Microseconds that a burst may take on top
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_burst: Option<u64>,

    /// Length of a real-time period
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_rt_period: Option<u64>,

    /// Real-time scheduling in each real-time period
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<i64>,

    /// 1 for the idle scheduling class
    #[arg(long, value_name = "0|1", allow_hyphen_values = true)]
    pub cpu_idle: Option<i64>,

    /// Processors to run on, such as 0-3,7
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,

    /// Memory nodes to take memory from
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,

    /// Number of processes and threads; -1 for no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,

    /// Relative weight of disk access, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub blkio_weight: Option<u16>,

    /// Accepted for compatibility: kernels count this as memory
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, hide = true)]
    pub kernel_memory: Option<String>,

    /// TCP buffers (cgroup v1)
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, hide = true)]
    pub kernel_memory_tcp: Option<String>,

    /// Refused: Intel RDT is not supported
    #[arg(long, value_name = "SCHEMA", hide = true)]
    pub l3_cache_schema: Option<String>,

    /// Refused: Intel RDT is not supported
    #[arg(long, value_name = "SCHEMA", hide = true)]
    pub mem_bw_schema: Option<String>,

    /// Container id
    #[arg(value_name = "ID")]
    pub id: String,
}
