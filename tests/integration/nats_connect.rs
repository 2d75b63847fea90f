//! Connecting: credentials, errors, and what is known of the server.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use data_encoding::BASE64URL_NOPAD;
use lookback::nats::connect::{Auth, ConnectError, Material, Nats, Options, Target};
use lookback_dev::support::{NatsServer, Settings, binary, eventually};
use nkeys::KeyPair;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::nats_fixture::{Fixture, SOON, connect, target};

fn with_user(password: &str) -> Settings {
    Settings {
        user: Some(("alice".to_owned(), password.to_owned())),
        ..Settings::default()
    }
}

fn with_password(url: String, password: Material) -> Target {
    Target {
        auth: Some(Auth::UserPassword {
            username: Material::Bytes(b"alice".to_vec()),
            password,
        }),
        ..target(url)
    }
}

#[tokio::test]
async fn a_current_server_is_fit() -> Result<()> {
    let fixture = Fixture::bare().await?;
    let server = fixture.nats.server().await?;
    assert!(server.api_level >= 4);
    assert!(!server.clustered);
    assert!(fixture.nats.max_payload() > 0);
    Ok(())
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_not_shown() -> Result<()> {
    let server = NatsServer::start_with(with_user("right")).await?;
    let target = with_password(server.url(), Material::Bytes(b"hunter2".to_vec()));
    let error = Nats::connect(&target, &Options::named("test"))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ConnectError::Unauthorized { .. }),
        "{error:?}"
    );
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    Ok(())
}

#[tokio::test]
async fn a_rotated_password_file_is_read_at_the_next_connect() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("password");
    fs::write(&file, "old\n")?;
    let mut server = NatsServer::start_with(with_user("old")).await?;
    let target = with_password(server.url(), Material::File(file.clone()));
    let nats = Nats::connect(&target, &Options::named("test")).await?;
    server.kill();
    fs::write(&file, "new\n")?;
    server.configure(with_user("new"));
    server.restart().await?;
    eventually(SOON, "the client is back", async || {
        Ok(nats.server().await?)
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_missing_password_file_is_named() -> Result<()> {
    let server = NatsServer::start_with(with_user("old")).await?;
    let target = with_password(server.url(), Material::File("/nowhere/password".into()));
    let error = Nats::connect(&target, &Options::named("test"))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read the password from /nowhere/password"
    );
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_down_is_named() -> Result<()> {
    let mut server = NatsServer::start().await?;
    server.kill();
    let error = connect(server.url()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot connect to NATS at {}", server.url())
    );
    Ok(())
}

#[tokio::test]
async fn a_server_without_tls_is_refused_when_tls_is_required() -> Result<()> {
    let server = NatsServer::start().await?;
    let target = Target {
        tls_required: true,
        ..target(server.url())
    };
    let error = Nats::connect(&target, &Options::named("test"))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ConnectError::Unreachable { .. }),
        "{error:?}"
    );
    Ok(())
}

#[tokio::test]
async fn an_account_without_jetstream_is_named() -> Result<()> {
    let settings = Settings {
        extra: "accounts { A { users: [{user: bob, password: b}] } }\nno_auth_user: bob\n"
            .to_owned(),
        ..Settings::default()
    };
    let server = NatsServer::start_with(settings).await?;
    let error = Nats::connect(&target(server.url()), &Options::named("test"))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ConnectError::JetStreamMissing { .. }),
        "{error:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_lost_connection_is_counted() -> Result<()> {
    let mut fixture = Fixture::bare().await?;
    let disconnects = fixture.nats.disconnects();
    fixture.server.kill();
    eventually(SOON, "the loss is counted", async || {
        ensure!(*disconnects.borrow() > 0);
        Ok(())
    })
    .await
}

/// A server in operator mode with one account, and the credentials of a user of it.
fn operator_mode() -> Result<(Settings, String)> {
    let (operator, account, system, user) = (
        KeyPair::new_operator(),
        KeyPair::new_account(),
        KeyPair::new_account(),
        KeyPair::new_user(),
    );
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "conn": -1, "leaf": -1, "imports": -1,
        "exports": -1, "wildcards": true, "mem_storage": -1, "disk_storage": -1, "streams": -1,
        "consumer": -1
    });
    let account_claims = json!({ "type": "account", "version": 2, "limits": limits });
    let system_claims = json!({
        "type": "account", "version": 2,
        "limits": { "subs": -1, "data": -1, "payload": -1, "conn": -1, "imports": -1, "exports": -1 }
    });
    let operator_claims =
        json!({ "type": "operator", "version": 2, "system_account": system.public_key() });
    let user_claims =
        json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1 });
    let extra = format!(
        "operator: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {}, {}: {} }}\n",
        jwt(&operator, &operator, &operator_claims)?,
        account.public_key(),
        jwt(&operator, &account, &account_claims)?,
        system.public_key(),
        jwt(&operator, &system, &system_claims)?,
    );
    let creds = format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n*** IMPORTANT ***\n\n-----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        jwt(&account, &user, &user_claims)?,
        user.seed()?,
    );
    let settings = Settings {
        extra,
        ..Settings::default()
    };
    Ok((settings, creds))
}

fn jwt(issuer: &KeyPair, subject: &KeyPair, claims: &Value) -> Result<String> {
    let part = |value: Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let body = json!({
        "jti": "test", "iat": 1_700_000_000, "iss": issuer.public_key(),
        "sub": subject.public_key(), "name": "test", "nats": claims
    });
    let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let signed = format!("{}.{}", part(header), part(body));
    let signature = BASE64URL_NOPAD.encode(&issuer.sign(signed.as_bytes())?);
    Ok(format!("{signed}.{signature}"))
}

#[tokio::test]
async fn a_user_with_credentials_gets_in_from_a_file_and_from_a_secret() -> Result<()> {
    let (settings, creds) = operator_mode()?;
    let server = NatsServer::start_with(settings).await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("user.creds");
    fs::write(&file, &creds)?;
    for material in [Material::File(file), Material::Bytes(creds.into_bytes())] {
        let target = Target {
            auth: Some(Auth::Credentials(material)),
            ..target(server.url())
        };
        let nats = Nats::connect(&target, &Options::named("test")).await?;
        assert!(nats.server().await?.api_level >= 4);
    }
    Ok(())
}

#[tokio::test]
async fn credentials_of_another_operator_are_refused() -> Result<()> {
    let (settings, _) = operator_mode()?;
    let (_, foreign) = operator_mode()?;
    let server = NatsServer::start_with(settings).await?;
    let target = Target {
        auth: Some(Auth::Credentials(Material::Bytes(foreign.into_bytes()))),
        ..target(server.url())
    };
    let error = Nats::connect(&target, &Options::named("test"))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ConnectError::Unauthorized { .. }),
        "{error:?}"
    );
    Ok(())
}

/// A server with a certificate for 127.0.0.1, and the folder with the CA that made it, `ca.pem`.
async fn tls_server() -> Result<(NatsServer, TempDir)> {
    let dir = tempfile::tempdir()?;
    let made = Command::new(binary("localcluster")?)
        .arg("make-certificates")
        .arg("--out")
        .arg(dir.path())
        .status()?;
    ensure!(made.success(), "no certificates were made");
    let extra = format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\" }}\n",
        dir.path().join("server.pem").display(),
        dir.path().join("server-key.pem").display()
    );
    let server = NatsServer::start_with(Settings {
        extra,
        ..Settings::default()
    })
    .await?;
    Ok((server, dir))
}

#[tokio::test]
async fn a_server_of_our_ca_is_trusted_by_file_and_by_secret() -> Result<()> {
    let (server, dir) = tls_server().await?;
    let ca = dir.path().join("ca.pem");
    for material in [Material::File(ca.clone()), Material::Bytes(fs::read(ca)?)] {
        let target = Target {
            ca: Some(material),
            tls_required: true,
            ..target(server.url())
        };
        let nats = Nats::connect(&target, &Options::named("test")).await?;
        assert!(nats.server().await?.api_level >= 4);
    }
    Ok(())
}

#[tokio::test]
async fn behind_a_tunnel_a_certificate_is_checked_for_the_name_at_its_far_end() -> Result<()> {
    let (server, dir) = tls_server().await?;
    let target = Target {
        ca: Some(Material::File(dir.path().join("ca.pem"))),
        tls_required: true,
        ..target(server.url())
    };
    let connect = async |host: &str| {
        let options = Options {
            behind: vec![host.to_owned()],
            ..Options::named("test")
        };
        Nats::connect(&target, &options).await
    };
    connect("localhost").await?;
    // The certificate is for 127.0.0.1 as well, which says nothing of who is behind it.
    let error = connect("nats.infra.svc").await.unwrap_err();
    assert!(
        matches!(error, ConnectError::Unreachable { .. }),
        "{error:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_server_of_an_unknown_ca_is_refused() -> Result<()> {
    let (server, _dir) = tls_server().await?;
    let error = Nats::connect(&target(server.url()), &Options::named("test"))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ConnectError::Unreachable { .. }),
        "{error:?}"
    );
    Ok(())
}
