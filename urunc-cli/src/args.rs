//! The command line, in runc's shape: what containerd's shim, conmon, CRI-O and Docker send is understood.
//!
//! Only grammar lives here. Flags that callers send and that mean nothing to a unikernel are accepted and
//! marked "accepted for compatibility".

use std::path::PathBuf;

mod command;
mod events;
mod update;

pub use command::Command;
pub use events::EventsArgs;
pub use update::UpdateArgs;

use clap::{ArgAction, Parser, ValueEnum};

/// What the manual page says besides.
const FILES: &str = "Configuration: /etc/urunc/config.toml, or the file that URUNC_CONFIG_FILE names. A container keeps what it was \
created with. Containers that are no unikernels go to another runtime (runtime.delegate, runc by default).";

/// An OCI runtime for unikernels and microVMs.
#[derive(Debug, Parser)]
#[command(name = "urunc", version, propagate_version = true, disable_version_flag = true, max_term_width = 110, after_help = FILES)]
pub struct Args {
    /// Options that come before the command.
    #[command(flatten)]
    pub global: GlobalArgs,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that come before the command.
#[derive(Clone, Debug, clap::Args)]
pub struct GlobalArgs {
    /// Directory that holds the containers' state [default: /run/urunc, or $XDG_RUNTIME_DIR/urunc without root]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,

    /// Append log records to this file instead of standard error
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,

    /// Shape of the log records
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// Log decisions and values, too
    #[arg(long)]
    pub debug: bool,

    /// Have systemd make the cgroup: linux.cgroupsPath is then slice:prefix:name
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true",
          value_name = "BOOL", hide_default_value = true, hide_possible_values = true)]
    pub systemd_cgroup: bool,

    /// Print the version
    #[arg(short = 'v', short_alias = 'V', long, action = ArgAction::Version)]
    version: Option<bool>,

    /// Accepted for compatibility
    #[arg(long, value_name = "MODE", hide = true)]
    pub rootless: Option<String>,

    /// Accepted for compatibility
    #[arg(long, value_name = "PATH", hide = true)]
    pub criu: Option<PathBuf>,
}

/// Shape of the log records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line for people.
    #[default]
    Text,
    /// One JSON object a line, as containerd reads it.
    Json,
}

/// A command that takes just a container id.
#[derive(Debug, clap::Args)]
pub struct IdArgs {
    /// Container id
    #[arg(value_name = "ID")]
    pub id: String,
}

/// What `create` and `run` share.
#[derive(Clone, Debug, clap::Args)]
pub struct BundleArgs {
    /// Directory of the OCI bundle
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,

    /// Unix socket that receives the master of the container's terminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,

    /// File to write the container's process id to
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,

    /// Unix socket that receives the container's pidfd
    #[arg(long, value_name = "SOCKET", hide = true)]
    pub pidfd_socket: Option<PathBuf>,

    /// Accepted for compatibility: the monitor's root is a fresh tmpfs that is always pivoted into
    #[arg(long, hide = true)]
    pub no_pivot: bool,

    /// Leave the container its caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,

    /// Accepted for compatibility: a monitor inherits only the descriptors that its plan names
    #[arg(long, value_name = "N", hide = true)]
    pub preserve_fds: Option<u32>,
}

/// `urunc create`
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// Where the container comes from.
    #[command(flatten)]
    pub bundle: BundleArgs,

    /// Container id
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `urunc run`
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Where the container comes from.
    #[command(flatten)]
    pub bundle: BundleArgs,

    /// Return as soon as the guest boots instead of waiting for its end
    #[arg(short, long)]
    pub detach: bool,

    /// Keep the stopped container instead of removing it
    #[arg(long)]
    pub keep: bool,

    /// Accepted for compatibility
    #[arg(long, hide = true)]
    pub no_subreaper: bool,

    /// Container id
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `urunc kill`
#[derive(Debug, clap::Args)]
pub struct KillArgs {
    /// Accepted for compatibility: a container has one process, its monitor
    #[arg(short, long)]
    pub all: bool,

    /// Container id
    #[arg(value_name = "ID")]
    pub id: String,

    /// Signal, as a number or a name with or without SIG
    #[arg(value_name = "SIGNAL", default_value = "TERM")]
    pub signal: String,
}

/// `urunc delete`
#[derive(Debug, clap::Args)]
pub struct DeleteArgs {
    /// Kill the container first if it runs, and succeed if it does not exist
    #[arg(short, long)]
    pub force: bool,

    /// Container id
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `urunc spec`
#[derive(Debug, clap::Args)]
pub struct SpecArgs {
    /// Directory to write it to
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
}

/// `urunc check`
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Bundle to look at, besides the host
    #[arg(short, long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
}

/// `urunc features`
#[derive(Debug, clap::Args)]
pub struct FeaturesArgs {}

/// `urunc exec`: the flags that runc knows, so that the container's id can be told from their values. Whoever executes
/// the process reads them again.
#[derive(Debug, clap::Args)]
pub struct ExecArgs {
    /// Description of the process, as OCI JSON
    #[arg(short, long, value_name = "FILE")]
    pub process: Option<PathBuf>,

    /// Unix socket that receives the master of the process's terminal
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,

    /// File to write the process's id to
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,

    /// Return as soon as the process runs
    #[arg(short, long)]
    pub detach: bool,

    /// Give the process a terminal
    #[arg(short, long)]
    pub tty: bool,

    /// Working directory
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,

    /// Environment variable
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,

    /// User and group
    #[arg(short, long, value_name = "UID[:GID]")]
    pub user: Option<String>,

    /// Other flags of runc that take a value.
    #[command(flatten)]
    pub rest: ExecRest,

    /// Container id
    #[arg(value_name = "ID")]
    pub id: String,

    /// The command, unless --process is given
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// Flags of `runc exec` that are rarely used.
#[derive(Debug, clap::Args)]
pub struct ExecRest {
    /// Passed on
    #[arg(short = 'g', long, value_name = "GID", hide = true)]
    pub additional_gids: Vec<String>,

    /// Passed on
    #[arg(long, value_name = "LABEL", hide = true)]
    pub process_label: Option<String>,

    /// Passed on
    #[arg(long, value_name = "PROFILE", hide = true)]
    pub apparmor: Option<String>,

    /// Passed on
    #[arg(long, hide = true)]
    pub no_new_privs: bool,

    /// Passed on
    #[arg(short, long, value_name = "CAPABILITY", hide = true)]
    pub cap: Vec<String>,

    /// Passed on
    #[arg(long, value_name = "N", hide = true)]
    pub preserve_fds: Option<u32>,

    /// Passed on
    #[arg(long, value_name = "PATH", hide = true)]
    pub cgroup: Vec<String>,

    /// Passed on
    #[arg(long, hide = true)]
    pub ignore_paused: bool,
}

/// Shape of a listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Columns for people.
    #[default]
    Table,
    /// Data for programs.
    Json,
}

/// `urunc list`
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Shape of the list
    #[arg(short, long, value_enum, default_value_t)]
    pub format: OutputFormat,

    /// Print only the ids
    #[arg(short, long)]
    pub quiet: bool,
}

/// `urunc ps`
#[derive(Debug, clap::Args)]
pub struct PsArgs {
    /// Shape of the list
    #[arg(short, long, value_enum, default_value_t)]
    pub format: OutputFormat,

    /// Container id
    #[arg(value_name = "ID")]
    pub id: String,

    /// Options of ps(1) for the table [default: -ef]
    #[arg(value_name = "PS_OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub ps_options: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_consistent() {
        Args::command().debug_assert();
    }

    /// `--help` and the manual pages are made of these texts.
    #[test]
    fn everything_that_is_shown_is_explained_in_one_line() {
        let mut all = Args::command();
        all.build();
        let mut commands = vec![all];
        while let Some(command) = commands.pop() {
            let name = command.get_name().to_owned();
            let about = command.get_about().unwrap_or_else(|| panic!("{name}")).to_string();
            assert!(!about.is_empty() && !about.ends_with('.'), "{name}: {about}");
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                let help =
                    argument.get_help().unwrap_or_else(|| panic!("{name} {}", argument.get_id())).to_string();
                assert!(!help.is_empty() && !help.contains('\n') && !help.ends_with('.'), "{name}: {help}");
            }
            commands.extend(command.get_subcommands().cloned());
        }
    }

    /// What the callers of runc really send (lab.md "Clients").
    #[test]
    fn command_lines_of_known_callers_are_understood() {
        let lines = [
            "urunc --root /run/containerd/runc/k8s.io --log /b/log.json --log-format json create --bundle /b --pid-file /b/init.pid ID",
            "urunc --root /r --log /b/log.json --log-format json --systemd-cgroup create --bundle /b --pid-file /b/init.pid --console-socket /tmp/s ID",
            "urunc --root /r start ID",
            "urunc --root /r kill ID 15",
            "urunc --root /r kill --all ID 9",
            "urunc --root /r delete ID",
            "urunc --root /r delete --force ID",
            "urunc --systemd-cgroup create --bundle /b --pid-file /p ID",
            "urunc kill ID 9",
            "urunc pause ID",
            "urunc events --stats ID",
            "urunc events --interval 500ms ID",
            "urunc update --resources - ID",
            "urunc update --memory-swap -1 --cpu-quota -1 --memory 64m ID",
            "urunc update --kernel-memory 0 --blkio-weight 10 ID",
            "urunc resume ID",
            "urunc --rootless=true state ID",
            "urunc ps --format json ID",
            "urunc run -d -b /b ID",
            "urunc --root /var/run/docker/runtime-runc/moby --log /b/log.json --log-format json --systemd-cgroup create --bundle /b --pid-file /b/init.pid --no-pivot --no-new-keyring ID",
            "urunc --debug --log=/b/log.json --log-format=json state ID",
            "urunc --log /l --log-format json create --bundle /b --preserve-fds 3 --console-socket /c --pid-file /p ID",
            "urunc --criu /usr/sbin/criu run --no-subreaper --keep --no-pivot --bundle /b ID",
            "urunc kill -a ID SIGKILL",
            "urunc events --stats ID",
            "urunc events --interval 5s ID",
            "urunc pause ID",
            "urunc resume ID",
            "urunc update --resources - ID",
            "urunc list --format json --quiet",
            "urunc ps ID -ef",
            "urunc features",
            "urunc --systemd-cgroup=true create --bundle /b --pidfd-socket /s ID",
            "urunc --systemd-cgroup=false state ID",
            "urunc exec --pid-file /p --process /f --detach --preserve-fds 1 --console-socket /c ID",
            "urunc exec --no-new-privs --cap CAP_CHOWN --apparmor a --process-label l -g 1 --cwd / -u 0:0 ID ls -l",
            "urunc exec --pid-file /p --process /f --detach ID",
            "urunc exec -t -e A=b ID sh -c true",
        ];
        for flag in ["-v", "-V", "--version"] {
            let said = Args::try_parse_from(["urunc", flag]).unwrap_err();
            assert!(
                said.kind() == clap::error::ErrorKind::DisplayVersion && said.to_string().contains("urunc"),
                "{said}"
            );
        }
        for line in lines {
            Args::try_parse_from(line.split(' ')).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }
}
