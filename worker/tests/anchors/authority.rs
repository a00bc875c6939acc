//! A time-stamping authority of the test's own: certificates and tokens by OpenSSL, the answers over HTTP.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use tokio::net::TcpListener;

use super::skipped;

/// What OpenSSL's `ca` and `ts` want to know.
const SETTINGS: &str = "
[req]
distinguished_name = name
prompt = no
[name]
CN = placeholder
[ca]
default_ca = house
[house]
dir = .
new_certs_dir = .
database = ./index.txt
serial = ./serial
default_md = sha256
policy = anything
unique_subject = no
copy_extensions = none
[anything]
commonName = supplied
[root]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[stamping]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
[serving]
basicConstraints = critical, CA:false
extendedKeyUsage = critical, serverAuth
[tsa]
default_tsa = stamps
[stamps]
serial = ./tsaserial
default_policy = 1.3.6.1.4.1.99999.1
digests = sha256, sha384, sha512
signer_digest = sha256
accuracy = secs:1
ordering = yes
ess_cert_id_alg = sha256
";

/// Whether OpenSSL is there.
pub(crate) fn has_openssl() -> bool {
    let found = Command::new("openssl").arg("version").output().is_ok_and(|output| output.status.success());
    if !found {
        skipped("openssl (apt-get install openssl)");
    }
    found
}

/// The keys of an authority.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Keys {
    Rsa,
    Ecdsa,
}

/// What is odd about its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    Sound,
    /// It ended years ago.
    Expired,
}

/// A root, and a certificate below it that stamps time.
pub(crate) struct Authority {
    dir: tempfile::TempDir,
}

impl Authority {
    pub(crate) fn new(keys: Keys, holder: Holder) -> Self {
        let authority = Self { dir: tempfile::tempdir().expect("a directory") };
        std::fs::write(authority.path("openssl.cnf"), SETTINGS).expect("written");
        std::fs::write(authority.path("index.txt"), "").expect("written");
        std::fs::write(authority.path("serial"), "1000\n").expect("written");
        std::fs::write(authority.path("tsaserial"), "01\n").expect("written");
        authority.key("root", keys);
        authority.run(&format!(
            "req -new -x509 -config openssl.cnf -extensions root -key root.key -subj /CN=Test-Root-{keys:?} -days 3650 -out \
             root.pem"
        ));
        authority.key("tsa", keys);
        let end = match holder {
            Holder::Sound => "20491231235959Z",
            Holder::Expired => "20211231235959Z",
        };
        authority.certify("tsa", "stamping", end);
        authority
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The root, PEM.
    pub(crate) fn root(&self) -> Vec<u8> {
        std::fs::read(self.path("root.pem")).expect("the root")
    }

    fn key(&self, name: &str, keys: Keys) {
        let kind = match keys {
            Keys::Rsa => "-algorithm RSA -pkeyopt rsa_keygen_bits:2048",
            Keys::Ecdsa => "-algorithm EC -pkeyopt ec_paramgen_curve:P-256",
        };
        self.run(&format!("genpkey {kind} -out {name}.key"));
    }

    /// A certificate for the key of `name`, from 2020 until `end`.
    fn certify(&self, name: &str, purpose: &str, end: &str) {
        self.run(&format!("req -new -config openssl.cnf -key {name}.key -subj /CN=Test-{name} -out {name}.csr"));
        self.run(&format!(
            "ca -batch -notext -config openssl.cnf -extensions {purpose} -cert root.pem -keyfile root.key -in {name}.csr \
             -startdate 20200101000000Z -enddate {end} -out {name}.pem"
        ));
    }

    /// Runs OpenSSL in the authority's folder.
    pub(crate) fn run(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(self.dir.path())
            .output()
            .expect("openssl runs");
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Answers a request as the authority would.
    pub(crate) fn answer(&self, request: &[u8]) -> Vec<u8> {
        std::fs::write(self.path("query.tsq"), request).expect("written");
        self.run(
            "ts -reply -config openssl.cnf -section stamps -queryfile query.tsq -signer tsa.pem -inkey tsa.key -chain \
             root.pem -out reply.tsr",
        );
        std::fs::read(self.path("reply.tsr")).expect("an answer")
    }

    /// The same content as in the last answer, signed by a certificate that is for servers and not for time.
    pub(crate) fn token_of_a_server(&self, answer: &Path) -> Vec<u8> {
        self.key("web", Keys::Rsa);
        self.certify("web", "serving", "20491231235959Z");
        self.run(&format!("ts -reply -in {} -token_out -out sound.tst", answer.display()));
        self.run("cms -verify -noverify -inform DER -in sound.tst -binary -out info.der");
        self.run(
            "cms -sign -cades -binary -nodetach -econtent_type 1.2.840.113549.1.9.16.1.4 -md sha256 -outform DER -signer \
             web.pem -inkey web.key -in info.der -out web.tst",
        );
        std::fs::read(self.path("web.tst")).expect("a token")
    }

    /// Listens on a port of loopback.
    pub(crate) async fn listen(self: &Arc<Self>) -> String {
        serve(Router::new().route("/", post(reply)).with_state(Arc::clone(self))).await
    }
}

async fn reply(
    State(authority): State<Arc<Authority>>,
    request: Bytes,
) -> ([(&'static str, &'static str); 1], Vec<u8>) {
    let answer = tokio::task::spawn_blocking(move || authority.answer(&request)).await.expect("an answer");
    ([("content-type", "application/timestamp-reply")], answer)
}

/// Serves on a free port of loopback until the runtime of the test ends.
async fn serve(router: Router) -> String {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port");
    let at = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{at}/")
}

/// An authority that answers with these bytes whatever it is asked.
pub(crate) async fn broken(status: StatusCode, answer: Vec<u8>) -> String {
    let answer = move || {
        let answer = answer.clone();
        async move { (status, answer) }
    };
    serve(Router::new().route("/", post(answer))).await
}
