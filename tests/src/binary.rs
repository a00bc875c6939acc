//! The built `muneem`, as an operator starts it.

use std::{
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// The binary beside the test: `target/debug/muneem` for `target/debug/deps/it-…`. For a long round another build of it,
/// which `MUNEEM_BINARY` names.
///
/// # Panics
/// When it is not built.
pub fn path() -> PathBuf {
    if let Some(named) = std::env::var_os("MUNEEM_BINARY").map(PathBuf::from) {
        assert!(named.exists(), "MUNEEM_BINARY is {}, which is not there", named.display());
        return named;
    }
    let test = std::env::current_exe().expect("a test knows where it is");
    let folder = test.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps");
    let binary = folder.join("muneem");
    assert!(binary.exists(), "{} is not built: run `cargo build --workspace` first", binary.display());
    binary
}

/// The same root key for every process of a test, as an operator would copy it to each machine.
fn write_root_key(path: &Path) {
    let _ = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map(|mut file| file.write_all("07".repeat(32).as_bytes()).expect("the key is written"));
}

/// `muneem` with nothing of this machine's settings.
///
/// # Panics
/// When it is not built.
pub fn command(arguments: &[&str], home: &Path, environment: &[(&str, String)]) -> Command {
    let root_key = home.join("root.key");
    write_root_key(&root_key);
    let mut command = Command::new(path());
    command
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .env("MUNEEM__VAULT__KEY_FILE", &root_key)
        .envs(environment.iter().map(|(name, value)| (*name, value.as_str())))
        .current_dir(home)
        .stdin(Stdio::null());
    command
}

/// A running `muneem`; killed when dropped.
pub struct Running(Child);

impl Running {
    /// Starts it with nothing of this machine's settings.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(arguments: &[&str], home: &Path, environment: &[(&str, String)]) -> Self {
        let mut command = command(arguments, home, environment);
        Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts"))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// The same, and all it says goes to a file: for a process that says more than a pipe holds.
    ///
    /// # Panics
    /// When it does not start, or the file cannot be made.
    pub fn start_writing(arguments: &[&str], home: &Path, environment: &[(&str, String)], log: &Path) -> Self {
        let out = std::fs::File::create(log).expect("the file is made");
        let err = out.try_clone().expect("the file is open");
        let mut command = command(arguments, home, environment);
        Self(command.stdout(out).stderr(err).spawn().expect("the binary starts"))
    }

    /// Sends SIGTERM and waits for the end: whether it ended in peace, and all it said into its pipes.
    ///
    /// # Panics
    /// When it cannot be asked.
    pub fn terminate(mut self) -> (bool, String) {
        let asked = Command::new("kill").arg(self.0.id().to_string()).status().expect("kill is there");
        assert!(asked.success(), "it has ended already");
        let status = self.0.wait().expect("it ends");
        let mut said = String::new();
        let streams = [
            self.0.stdout.take().map(|out| Box::new(out) as Box<dyn Read>),
            self.0.stderr.take().map(|err| Box::new(err) as Box<dyn Read>),
        ];
        for mut stream in streams.into_iter().flatten() {
            stream.read_to_string(&mut said).expect("it is text");
        }
        (status.success(), said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
