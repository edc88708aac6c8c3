//! A call to the API that the environment names:
//! `INNGEST_SIGNING_KEY=… cargo run --example api_reqwest`.

use inngest_auth::Config;
use reqwest::{Method, Request};
use sdk_interop::{call, client};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::from_env()?;
    let keys = config
        .keys()
        .ok_or("INNGEST_DEV is set: the dev server takes no token")?;
    let request = Request::new(
        Method::GET,
        format!("{}/v1/events", config.api_base()?).parse()?,
    );
    match call(&client()?, keys, &request).await {
        Ok(response) => println!("{} responded {}", config.api_base()?, response.status()),
        Err(error) => println!("no response: {error:?}"),
    }
    Ok(())
}
