//! From arguments to verbs, and from results to output. The only module that prints.

mod check;
mod delegate;
mod events;
mod features;
mod ps;
mod spec;
mod table;
mod unknown;
mod update;
mod usage;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use urunc_state::{ContainerId, StoreError};

use crate::args::{Args, BundleArgs, Command, GlobalArgs, ListArgs, OutputFormat, RunArgs};
use crate::config::{self, Config, ConfigError};
use crate::lifecycle::{
    self, CgroupDriver, Console, CreateRequest, Force, LifecycleError, RunRequest, Runtime, Waiting,
};
use crate::logger::{self, LogError};
use crate::sandbox::settings::Keyring;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The log file.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The container's id.
    #[error(transparent)]
    Id(#[from] urunc_state::InvalidId),
    /// The signal.
    #[error(transparent)]
    Signal(#[from] urunc_state::UnknownSignal),
    /// The verb itself.
    #[error(transparent)]
    Lifecycle(#[from] lifecycle::LifecycleError),
    /// Another runtime was to take over.
    #[error(transparent)]
    Delegate(#[from] delegate::DelegateError),
    /// A second process was to be started in a unikernel.
    #[error(
        "cannot execute a process in container {0}: it is a unikernel, which runs the one program that it was built \
         with"
    )]
    Exec(ContainerId),
    /// `config.json`.
    #[error(transparent)]
    SpecFile(#[from] spec::SpecFileError),
    /// ps(1) of the host.
    #[error(transparent)]
    Ps(#[from] ps::PsError),
    /// A command that there is only for other containers.
    #[error("cannot {command} {what}: it is a unikernel, and urunc has no such command for unikernels")]
    Unsupported {
        /// The command.
        command: String,
        /// The container or the bundle.
        what: String,
    },
    /// New limits.
    #[error(transparent)]
    Update(#[from] update::UpdateError),
    /// Standard output.
    #[error("cannot write to standard output")]
    Output(#[from] io::Error),
}

/// Runs one command. The exit code is 0, or for `run` the container's.
///
/// # Errors
/// [`CommandError`]; the caller reports it and exits with 1.
pub fn run(args: Args) -> Result<ExitCode, CommandError> {
    let config = Config::load(std::env::var_os(config::PATH_VARIABLE).map(Into::into));
    set_up_log(&args.global, config.as_ref().ok())?;
    let config = match config {
        // What runs must stay controllable, whatever has been written into the file meanwhile.
        Err(error) if !decides_by_configuration(&args.command) => {
            log::warn!("{}", crate::report::chain(&error));
            Config::default()
        }
        result => result?,
    };
    let forced = matches!(&args.command, Command::Delete(delete) if delete.force);
    let (root, delegate) = (args.global.root.clone(), config.runtime.delegate.clone());
    match execute(args, &config) {
        Err(error) if delegate::concerns_another_runtime(&error, root.as_deref(), &delegate) => {
            Err(delegate::execute(&delegate).into())
        }
        // Callers send a forced delete to be sure that nothing is left; nothing is.
        Err(CommandError::Lifecycle(LifecycleError::Store(StoreError::NotFound { .. }))) if forced => {
            Ok(ExitCode::SUCCESS)
        }
        result => result,
    }
}

/// Carries out a command line that cannot be understood, if it is another runtime's; what is returned is then its failure.
#[must_use]
pub fn run_unknown(line: &[OsString]) -> Option<CommandError> {
    unknown::run(line)
}

/// Writes a command line that cannot be understood into the log file that it names: containerd shows its user what is
/// there, and nothing of what is printed.
pub fn log_usage_error(error: &clap::Error, line: impl Iterator<Item = OsString>) {
    let Some((path, format)) = usage::log_of(line) else { return };
    if logger::install(Some(&path), format, log::LevelFilter::Error, None).is_ok() {
        log::error!("{}", usage::sentence(&error.to_string()));
    }
}

/// Whether a command makes something new; the others go by what has been recorded.
fn decides_by_configuration(command: &Command) -> bool {
    matches!(command, Command::Create(_) | Command::Run(_) | Command::Check(_))
}

fn execute(args: Args, config: &Config) -> Result<ExitCode, CommandError> {
    log::debug!("urunc {}: {:?}", env!("CARGO_PKG_VERSION"), args.command);
    let driver = if args.global.systemd_cgroup { CgroupDriver::Systemd } else { CgroupDriver::Cgroupfs };
    let runtime = || Runtime::open(args.global.root.as_deref(), config.clone());
    match args.command {
        Command::Create(create) => {
            let (id, request) = (create.id, create.bundle);
            runtime()?.create(&create_request(id, request, driver)?)?;
        }
        Command::Start(start) => runtime()?.start(&ContainerId::new(start.id)?)?,
        Command::State(state) => print_json(&runtime()?.state(&ContainerId::new(state.id)?)?)?,
        Command::Kill(kill) => runtime()?.kill(&ContainerId::new(kill.id)?, kill.signal.parse()?)?,
        Command::Delete(delete) => {
            let force = if delete.force { Force::Yes } else { Force::No };
            runtime()?.delete(&ContainerId::new(delete.id)?, force)?;
        }
        Command::Pause(pause) => runtime()?.pause(&ContainerId::new(pause.id)?)?,
        Command::Resume(resume) => runtime()?.resume(&ContainerId::new(resume.id)?)?,
        Command::Events(args) => events::print(&runtime()?, args)?,
        Command::Update(update) => {
            let (runtime, id) = (runtime()?, ContainerId::new(&update.id)?);
            // Whether it is ours is asked before standard input is read, which may be another runtime's.
            runtime.state(&id)?;
            runtime.update(&id, &update::resources(&update)?)?;
        }
        Command::Run(run) => {
            let request = run_request(run, driver)?;
            return Ok(ExitCode::from(runtime()?.run(&request)?));
        }
        Command::List(list) => print_list(&runtime()?, &list)?,
        Command::Ps(args) => ps::print(&runtime()?, args)?,
        Command::Exec(exec) => {
            let id = ContainerId::new(exec.id)?;
            runtime()?.state(&id)?;
            return Err(CommandError::Exec(id));
        }
        Command::Spec(spec) => spec::write(&spec.bundle)?,
        Command::Check(check) => {
            let findings = check::look(config, check.bundle.as_deref(), driver);
            io::stdout().lock().write_all(findings.render().as_bytes())?;
            return Ok(if findings.usable() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Features(_) => print_json(&features::document())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The log must be there before anything can fail, a wrong configuration included.
fn set_up_log(global: &GlobalArgs, config: Option<&Config>) -> Result<(), LogError> {
    let configured = config.map(|config| config.log.level).unwrap_or_default().into();
    let level = if global.debug { log::LevelFilter::Debug.max(configured) } else { configured };
    let syslog = config.filter(|config| config.log.syslog).map(|_| Path::new(logger::SYSLOG));
    logger::install(global.log.as_deref(), global.log_format, level, syslog)
}

fn create_request(
    id: String,
    bundle: BundleArgs,
    cgroups: CgroupDriver,
) -> Result<CreateRequest, CommandError> {
    Ok(CreateRequest {
        id: ContainerId::new(id)?,
        bundle: bundle.bundle,
        console: bundle.console_socket.map_or(Console::None, Console::Socket),
        pid_file: bundle.pid_file,
        pidfd_socket: bundle.pidfd_socket,
        cgroups,
        keyring: if bundle.no_new_keyring { Keyring::Callers } else { Keyring::New },
    })
}

fn run_request(run: RunArgs, driver: CgroupDriver) -> Result<RunRequest, CommandError> {
    let mut create = create_request(run.id, run.bundle, driver)?;
    let waiting = match (run.detach, run.keep) {
        (true, _) => Waiting::Detach,
        (false, true) => Waiting::ForegroundKeep,
        (false, false) => Waiting::Foreground,
    };
    if waiting != Waiting::Detach && create.console == Console::None {
        create.console = Console::Foreground;
    }
    Ok(RunRequest { create, waiting })
}

fn print_json(value: &serde_json::Value) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{value:#}")
}

fn print_list(runtime: &Runtime, list: &ListArgs) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    if list.quiet {
        for id in runtime.ids()? {
            writeln!(out, "{id}")?;
        }
        return Ok(());
    }
    let entries = runtime.list()?;
    match list.format {
        OutputFormat::Json => {
            let documents: Vec<_> =
                entries.iter().map(|e| urunc_state::OciState::new(&e.record, e.status)).collect();
            writeln!(out, "{}", serde_json::to_value(documents).map_err(lifecycle::LifecycleError::from)?)?;
        }
        OutputFormat::Table => {
            let rows = entries.iter().map(|entry| {
                [
                    entry.record.id().to_string(),
                    entry.pid().map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
                    entry.status.to_string(),
                    entry.record.urunc.monitor.clone(),
                    entry.record.urunc.guest.clone(),
                    entry.record.created.to_string(),
                    entry.record.bundle.display().to_string(),
                ]
            });
            let heads = ["ID", "PID", "STATUS", "MONITOR", "GUEST", "CREATED", "BUNDLE"];
            write!(out, "{}", table::render(heads, rows))?;
        }
    }
    Ok(())
}
