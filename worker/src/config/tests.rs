use muneem_jobs::outbound::{Algorithm, DkimKey};
use secrecy::ExposeSecret;

use super::*;
use crate::outbound::chance::OsChance;

fn read(file: &str, environment: &[(&str, &str)]) -> Result<Config, Problems> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("muneem.toml");
    std::fs::write(&path, file).expect("a file");
    let mut variables: BTreeMap<String, String> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    variables.insert("HOME".to_owned(), "/home/asha".to_owned());
    Config::read(Some(path), &variables)
}

fn problems(file: &str, environment: &[(&str, &str)]) -> String {
    read(file, environment).expect_err("problems").to_string()
}

#[test]
fn the_defaults_are_complete_and_valid() {
    let config = read("", &[]).expect("the defaults hold");
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8787");
    assert_eq!(config.queue.lease, Duration::from_secs(30));
    assert_eq!(config.data.dir, Path::new("/home/asha/.local/share/muneem"));
    assert_eq!(config.queue.reserved.len(), Lane::ALL.len());
    assert!(config.database.url.is_none());
    assert!(config.telemetry.otlp_endpoint.is_none());
}

#[test]
fn the_consoles_origin_is_an_origin_and_not_in_clear_off_this_machine() {
    let here = read("", &[]).expect("the defaults hold");
    assert_eq!(here.console_origin(), "http://localhost:8787");
    for (origin, written) in [
        ("https://console.example.in", "https://console.example.in"),
        ("https://Console.example.in:8443/", "https://console.example.in:8443"),
        ("http://localhost:9000", "http://localhost:9000"),
    ] {
        let config = read(&format!("[console]\norigin = {origin:?}"), &[]).expect(origin);
        assert_eq!(config.console_origin(), written);
    }
    for origin in
        ["http://console.example.in", "console.example.in", "https://a.example/console", "https://", "https://a b"]
    {
        let told = problems(&format!("[console]\norigin = {origin:?}"), &[]);
        assert!(told.contains("`console.origin` must look like https://"), "{origin}: {told}");
    }
    let told = problems("[console]\ncountry_header = \"CF IPCountry\"", &[]);
    assert!(told.contains("`console.country_header` must be the name of a header"), "{told}");
}

#[test]
fn every_default_has_a_comment_above_it() {
    let mut commented = false;
    for line in DEFAULTS.lines() {
        if line.contains(" = ") && !line.starts_with('#') && !Lane::ALL.iter().any(|l| line.starts_with(l.as_str())) {
            assert!(commented, "no comment above `{line}`");
        }
        commented = line.starts_with('#');
    }
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let file = "[queue]\nlease_secs = 5\npoll_millis = 200\n";
    let config = read(file, &[("MUNEEM__QUEUE__LEASE_SECS", "2")]).expect("valid");
    assert_eq!(config.queue.lease, Duration::from_secs(2));
    assert_eq!(config.queue.poll, Duration::from_millis(200));
    assert_eq!(config.queue.concurrency, 16);
    let from = |key: &str| config.settings().iter().find(|s| s.key == key).expect("listed").from;
    assert_eq!(from("queue.lease_secs"), Origin::Environment);
    assert_eq!(from("queue.poll_millis"), Origin::File);
    assert_eq!(from("queue.concurrency"), Origin::Default);
}

#[test]
fn every_problem_is_told_at_once_with_the_nearest_key() {
    let file = "[server]\nlisten = 8787\n[queue]\nleese_secs = 5\nconcurrency = 0\n[colour]\nwall = \"red\"\n";
    insta::assert_snapshot!(problems(file, &[("MUNEEM__TELEMETRY__FORMAT", "xml"), ("MUNEEM__QUEU__POLL_MILLIS", "1")]), @r"
    there is no setting `colour`: see `muneem config default` for all of them
    there is no setting `queue.leese_secs`: the nearest is `queue.lease_secs`
    `server.listen` must be a text, not a whole number
    there is no setting `MUNEEM__QUEU__POLL_MILLIS`: the nearest is `queue.poll_millis`
    `telemetry.format`: unknown variant `xml`, expected `pretty` or `json`
    `queue.concurrency` must be at least 1
    `queue.reserved` takes 8 places of 0: raise `queue.concurrency` or reserve fewer
    ");
}

#[test]
fn a_secret_in_the_file_is_refused_and_not_repeated() {
    let file = "[database]\nurl = \"postgres://asha:hunter2@db/shop\"\n[messaging.whatsapp]\naccess_token = \"EAAG\"\napp_secrets = [\"s3\"]\n";
    let text = problems(file, &[]);
    insta::assert_snapshot!(text, @r"
    `database.url` is a secret and does not belong into a file of settings: set `database.url_file` to a file that only muneem can read, or DATABASE_URL in the environment
    `messaging.whatsapp.access_token` is a secret and does not belong into a file of settings: set `messaging.whatsapp.access_token_file` to a file that only muneem can read, or MUNEEM__MESSAGING__WHATSAPP__ACCESS_TOKEN in the environment
    `messaging.whatsapp.app_secrets` is a secret and does not belong into a file of settings: set `messaging.whatsapp.app_secrets_file` to a file that only muneem can read, or MUNEEM__MESSAGING__WHATSAPP__APP_SECRETS in the environment
    ");
    for secret in ["hunter2", "EAAG", "s3"] {
        assert!(!text.contains(secret), "{secret} is shown");
    }
}

#[test]
fn secrets_come_from_files_and_the_environment_and_are_masked() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("app-secrets");
    std::fs::write(&path, "first\ncanary-two\n").expect("a file");
    let file = format!("[messaging.whatsapp]\napp_secrets_file = \"{}\"\n", path.display());
    let config = read(
        &file,
        &[("DATABASE_URL", "postgres://asha:hunter2@db/shop"), ("MUNEEM__MESSAGING__WHATSAPP__ACCESS_TOKEN", "EAAG")],
    )
    .expect("valid");
    assert_eq!(config.messaging.whatsapp.app_secrets.len(), 2);
    assert_eq!(config.messaging.whatsapp.access_token.as_ref().expect("set").expose_secret(), "EAAG");
    assert!(config.database.url.is_some());
    assert_eq!(config.warnings.len(), 1, "others can read the file");
    let shown = format!("{config:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("EAAG") && !shown.contains("canary-two"), "{shown}");
    let token = config.settings().iter().find(|s| s.key == "messaging.whatsapp.access_token").expect("listed");
    assert_eq!((token.value.as_str(), token.from), ("********", Origin::Environment));
}

#[test]
fn a_broken_file_is_named_with_its_line_and_without_its_text() {
    let text = problems("[database]\nurl = \"postgres://asha:hunter2@db\n", &[]);
    assert!(text.contains("muneem.toml line 2"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn mail_is_set_up_whole_and_in_clear_to_loopback_alone() {
    let with = |settings: &[(&str, &str)]| {
        let variables: Vec<(String, &str)> =
            settings.iter().map(|(name, value)| (format!("MUNEEM__MESSAGING__MAIL__{name}"), *value)).collect();
        let borrowed: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        read("", &borrowed).map(|config| config.messaging.mail).map_err(|problems| problems.to_string())
    };
    let mail = with(&[("HOST", "127.0.0.1"), ("TLS", "none"), ("FROM", "till@example.in")]).expect("valid");
    assert_eq!((mail.tls, mail.port), (crate::outbound::mail::Tls::None, 587));
    let off = with(&[("HOST", "mx.example.in"), ("TLS", "none"), ("USER", "till")]).expect_err("three problems");
    for key in ["messaging.mail.from", "messaging.mail.tls", "messaging.mail.password_file"] {
        assert!(off.contains(key), "{key}: {off}");
    }
    assert!(with(&[("FROM", "till")]).expect_err("no address").contains("messaging.mail.from"));
    assert!(with(&[("HOST", "mx.example.in"), ("FROM", "till@example.in")]).is_ok());
    let good = [("HOST", "mx.example.in"), ("FROM", "till@example.in")];
    let wrong = |name: &'static str, value: &'static str| {
        with(&[good[0], good[1], (name, value)]).map(drop).expect_err("a problem")
    };
    assert!(wrong("RETURN_PATH", "bounces").contains("messaging.mail.return_path"));
    assert!(wrong("DKIM_DOMAIN", "example.in").contains("dkim_key_file"));
    assert!(wrong("WEBHOOK_TOKEN", "guess").contains("webhook_token_file"));
    assert!(wrong("IMAP__HOST", "mx.example.in").contains("password_file"));
    let key = DkimKey::generate(Algorithm::Ed25519, &OsChance).expect("a key");
    let signed = |domain: &'static str, key: &str| {
        with(&[good[0], good[1], ("DKIM_DOMAIN", domain), ("DKIM_SELECTOR", "a"), ("DKIM_KEY", key)]).map(drop)
    };
    assert_eq!(signed("example.in", key.expose_secret()), Ok(()));
    assert!(signed("other.in", key.expose_secret()).expect_err("unaligned").contains("dkim_domain"));
    let problem = signed("example.in", "-----BEGIN PRIVATE KEY-----secret").expect_err("no key");
    assert!(problem.contains("dkim_key_file") && !problem.contains("secret"), "{problem}");
}

#[test]
fn a_key_service_is_set_up_whole_and_its_secrets_stay_out_of_the_file() {
    let with = |settings: &[(&str, &str)]| {
        let variables: Vec<(String, &str)> =
            settings.iter().map(|(name, value)| (format!("MUNEEM__VAULT__{name}"), *value)).collect();
        let borrowed: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        read("", &borrowed).map(|config| config.vault).map_err(|problems| problems.to_string())
    };
    let arn = "arn:aws:kms:ap-south-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    let vault = with(&[("KMS", "aws"), ("AWS__KEY_ID", arn), ("PREVIOUS_KMS", "file")]).expect("valid");
    assert_eq!((vault.kms, vault.previous_kms), (Kms::Aws, Some(Kms::File)));
    assert_eq!(vault.aws.service(vault.kms_timeout).expect("whole").region, "ap-south-1", "from the ARN");
    for (settings, named) in [
        (&[("KMS", "aws")][..], "vault.aws.key_id"),
        (&[("KMS", "aws"), ("AWS__KEY_ID", "alias/muneem")], "vault.aws.region"),
        (&[("KMS", "aws"), ("AWS__KEY_ID", arn), ("AWS__ACCESS_KEY_ID", "AKIA")], "vault.aws.secret_access_key_file"),
        (&[("KMS", "aws"), ("AWS__KEY_ID", arn), ("AWS__ENDPOINT", "http://kms.example.in")], "vault.aws.endpoint"),
        (&[("KMS", "gcp")], "vault.gcp.key"),
        (&[("KMS", "azure")], "vault.azure.key_url"),
        (&[("KMS", "azure"), ("AZURE__TENANT_ID", "t")], "vault.azure.client_secret_file"),
        (&[("KMS", "azure"), ("AZURE__ALGORITHM", "RSA1_5")], "vault.azure.algorithm"),
        (&[("KMS", "transit"), ("TRANSIT__KEY", "muneem")], "vault.transit.address"),
        (&[("KMS", "transit"), ("TRANSIT__ADDRESS", "http://10.0.0.9:8200")], "vault.transit.token_file"),
        (&[("PREVIOUS_KMS", "file")], "vault.previous_kms"),
        (&[("PREVIOUS_KMS", "gcp")], "vault.gcp.key"),
        (&[("PREVIOUS_KMS", "safe")], "vault.previous_kms"),
    ] {
        let told = with(settings).expect_err(named);
        assert!(told.contains(named), "{named}: {told}");
    }
    let told = problems("[vault.transit]\ntoken = \"s.abc\"\n[vault.aws]\nsecret_access_key = \"wJalr\"\n", &[]);
    assert!(told.contains("vault.transit.token_file") && told.contains("vault.aws.secret_access_key_file"), "{told}");
    assert!(!told.contains("s.abc") && !told.contains("wJalr"), "{told}");
}

#[test]
fn anchors_are_set_up_whole() {
    use crate::outbound::anchor_objects::Lock;

    let off = problems(
        "[evidence.timestamp]\nurls = [\"ftp://a\"]\n[evidence.objects]\nbucket = \"a/b\"\nendpoint = \
         \"http://s3.example.in\"\n[evidence.mail]\nto = [\"asha@example.in\"]\n",
        &[],
    );
    for key in ["timestamp.urls", "timestamp.roots_file", "mail.to", "access_key_id", "objects.endpoint", "bucket"] {
        assert!(off.contains(key), "{key}: {off}");
    }
    assert!(problems("[evidence.mail]\nto = [\"asha\"]\n", &[]).contains("evidence.mail.to"));
    let file = "[evidence.objects]\nbucket = \"heads\"\naccess_key_id = \"AK\"\nendpoint = \"http://127.0.0.1:9/\"\n";
    let config = read(file, &[("MUNEEM__EVIDENCE__OBJECTS__SECRET_ACCESS_KEY", "hunter2")]).expect("valid");
    let objects = &config.evidence.objects;
    assert_eq!((objects.endpoint.as_deref(), objects.lock), (Some("http://127.0.0.1:9"), Lock::Compliance));
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn plain_http_to_the_carrier_is_for_loopback_alone() {
    let with = |url: &str| problems("", &[("MUNEEM__MESSAGING__WHATSAPP__BASE_URL", url)]);
    assert!(with("http://graph.facebook.com").contains("https"));
    assert!(read("", &[("MUNEEM__MESSAGING__WHATSAPP__BASE_URL", "http://127.0.0.1:9000/")]).is_ok());
}
