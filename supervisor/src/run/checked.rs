//! What every start checks before it takes or changes anything, but for settings of the host that the configuration lets it
//! write.

use crate::Error;
use crate::children::ChildSpec;
use crate::children::ChildSpecs;
use crate::handover::predecessor::SUCCESSOR;
use crate::options::Options;
use crate::preflight::{available_cores, await_host, check_accounts, check_host, check_kernel};
use crate::process::invocation::Invocation;
use crate::process::output;
use loaded_config::plan::Plan;
use loaded_config::{Amendment, LoadedPlan, Source, parse_amended};
use loaded_host::HostSettings;
use loaded_netfilter::Tools;
use loaded_netfilter::trial::{Trial, load_tables};
use loaded_sandbox::proof::Expectation;
use loaded_sandbox::{CHROOT, Identity, KernelSupport, Layer, Role, check_chroot_dir};
use std::path::Path;

/// What every start has checked before it takes or changes anything.
pub(super) struct Checked {
    /// The command line, with absolute paths.
    pub(super) options: Options,
    pub(super) invocation: Invocation,
    pub(super) plan: Plan,
    /// What the plan was made of.
    sources: Vec<Source>,
    amendments: Vec<Amendment>,
    pub(super) tools: Tools,
    /// Core and queue of each worker.
    pub(super) workers: Vec<(u16, u16)>,
    /// Whether this kernel repeats packets, being tried in another process.
    pub(super) trial: Trial,
    /// What was written on the host for it.
    pub(super) settings: HostSettings,
    identity: Identity,
    kernel: KernelSupport,
}

impl Checked {
    /// Reads the configuration and checks kernel and host. `detach` is called once the configuration is read.
    ///
    /// # Errors
    /// What keeps an instance from serving.
    pub(super) fn check(options: &Options, detach: impl FnOnce(&Options) -> Result<(), Error>) -> Result<Self, Error> {
        // Before the working directory changes: a reload reads the same files, an upgrade starts the same command.
        let invocation = Invocation::current(SUCCESSOR)?;
        let options = options.with_absolute_paths()?;
        let loaded = options.load()?;
        output::set_level(loaded.plan.log_level);
        for note in &loaded.notes {
            log::info!("{note}");
        }
        for file in loaded.files() {
            log::info!("configuration: {}", file.display());
        }
        let LoadedPlan { plan, sources, amendments, .. } = loaded;
        detach(&options)?;
        let identity = Identity::lookup(&plan.user)?;
        check_accounts(&plan)?;
        check_chroot_dir(Path::new(CHROOT))?;
        let cores = plan.check_cores(&available_cores()?)?;
        let tools = Tools::find()?;
        if let Err(why) = load_tables(&tools) {
            log::warn!("the table of our rules cannot be tried: {why}");
        }
        let kernel = check_kernel(options.sandbox)?;
        let trial = Trial::begin();
        let mut settings = HostSettings::of_this_host();
        if !options.successor {
            await_host(&plan, options.wait, &mut settings);
        }
        check_host(&plan, &mut settings)?;
        let workers = cores.into_iter().map(|core| (core, plan.queue_base + core)).collect();
        Ok(Self { options, invocation, plan, sources, amendments, tools, workers, trial, settings, identity, kernel })
    }

    /// Lays what was changed at run time under another supervisor over the plan.
    ///
    /// # Errors
    /// The files contradict it now, or this host lacks something. Nothing is laid over then.
    pub(super) fn amend(&mut self, amendments: &[Amendment]) -> Result<(), Error> {
        if amendments.is_empty() {
            return Ok(());
        }
        let loaded = parse_amended(&self.sources, &self.options.overrides, amendments)?;
        check_host(&loaded.plan, &mut self.settings)?;
        loaded.forgotten.iter().for_each(|line| log::info!("since then: {line}"));
        (self.plan, self.amendments) = (loaded.plan, loaded.amendments);
        Ok(())
    }

    /// What to serve, and what it was made of.
    pub(super) fn loaded(&self) -> LoadedPlan {
        let Self { plan, sources, amendments, .. } = self;
        let (notes, forgotten) = (Vec::new(), Vec::new());
        LoadedPlan { plan: plan.clone(), notes, sources: sources.clone(), amendments: amendments.clone(), forgotten }
    }

    /// Queue of each worker.
    pub(super) fn queues(&self) -> Vec<u16> {
        self.workers.iter().map(|(_, queue)| *queue).collect()
    }

    /// What the children have to be.
    pub(super) fn specs(&self) -> ChildSpecs {
        let seccomp = self.kernel.has(Layer::Seccomp);
        let (identity, requirement) = (self.identity.clone(), self.options.sandbox);
        let worker = Expectation { seccomp, ..Expectation::of(Role::Worker, &identity) };
        let prober = Expectation { seccomp, ..Expectation::prober(&identity, self.workers.len()) };
        let exporter = Expectation { seccomp, ..Expectation::of(Role::Exporter, &identity) };
        let spec = |expected| ChildSpec { identity: identity.clone(), requirement, expected };
        ChildSpecs { worker: spec(worker), prober: spec(prober), exporter: spec(exporter) }
    }

    /// Names of the sandbox's layers that this kernel has.
    pub(super) fn layers(&self) -> Vec<String> {
        Layer::ALL.iter().filter(|layer| self.kernel.has(**layer)).map(|layer| layer.name().to_owned()).collect()
    }
}
