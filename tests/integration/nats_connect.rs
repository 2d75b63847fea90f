//! Connecting: credentials, errors, and what is known of the server.

use std::fs;

use anyhow::{Result, ensure};
use lookback::nats::connect::{Auth, ConnectError, Material, Nats, Options, Target};
use lookback_dev::support::{NatsServer, Settings, eventually};

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
