//! The real OpenTofu with the real terraform-provider-openstack, neither of which knows of `ksb`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::front::{Front, stack};
use super::program::run;
use crate::support::sandbox::Outcome;

/// The provider, by the name that the mirror has it under: Terraform would look for another one by itself.
const HEAD: &str = r#"
terraform {
  required_providers {
    openstack = { source = "registry.opentofu.org/terraform-provider-openstack/openstack", version = "3.4.0" }
  }
}
"#;

/// A directory with a configuration.
pub struct Workspace<'f> {
    front: &'f Front,
    folder: PathBuf,
    program: String,
}

impl<'f> Workspace<'f> {
    /// Writes it, and gets the provider.
    #[track_caller]
    pub fn new(front: &'f Front, name: &str, configuration: &str) -> Self {
        Self::for_program(&stack("TOFU"), front, name, configuration)
    }

    /// The same for another program that is as OpenTofu is.
    #[track_caller]
    pub fn for_program(program: &str, front: &'f Front, name: &str, configuration: &str) -> Self {
        let folder = front.sandbox.path(name);
        fs::create_dir(&folder).unwrap();
        let workspace = Self { front, folder, program: program.to_owned() };
        workspace.write(configuration);
        run(workspace.tofu(&["init", "-no-color", "-input=false"])).ok();
        workspace
    }

    /// Another configuration.
    pub fn write(&self, configuration: &str) {
        fs::write(self.folder.join("main.tf"), format!("{HEAD}{configuration}")).unwrap();
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// `tofu` as it is.
    pub fn tofu(&self, args: &[&str]) -> Command {
        self.as_it_is(self.front.sandbox.command(&self.program), args)
    }

    /// `ksb exec … -- tofu …`.
    pub fn with_leases(&self, exec: &[&str], args: &[&str]) -> Command {
        let mut command = self.front.sandbox.ksb(&["exec"]);
        command.args(exec).arg("--").arg(&self.program);
        self.as_it_is(command, args)
    }

    fn as_it_is(&self, mut command: Command, args: &[&str]) -> Command {
        command.args(args).current_dir(&self.folder).env("TF_CLI_CONFIG_FILE", stack("TOFU_CONFIG"));
        command
    }

    /// Runs `ksb exec … -- tofu …` to its end.
    #[track_caller]
    pub fn run(&self, exec: &[&str], args: &[&str]) -> Outcome {
        run(self.with_leases(exec, args))
    }
}

/// What `apply` and `destroy` need to ask nobody anything.
pub const APPLY: [&str; 5] = ["apply", "-no-color", "-input=false", "-auto-approve", "-parallelism=32"];
pub const DESTROY: [&str; 5] = ["destroy", "-no-color", "-input=false", "-auto-approve", "-parallelism=32"];
