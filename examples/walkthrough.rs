//! A walk through Hypercore in three steps: a log, a clone that fetches only what is read, and
//! updates as they come.
//!
//! ```text
//! cargo run --release --example walkthrough
//! ```

use std::{error::Error, time::Duration};

use async_std::{
    net::{TcpListener, TcpStream},
    task,
};
use futures_lite::{StreamExt, future};
use hypercore::{Ended, Event, Hypercore, ReplicateOptions, Role};

fn main() -> Result<(), Box<dyn Error>> {
    task::block_on(walk())
}

async fn walk() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;

    println!("1. A log that only its writer can extend, and anyone can check");
    let main = Hypercore::open(directory.path().join("main")).await?;
    main.append("hello").await?;
    main.append("world").await?;
    println!("   created   main, with the key {}", main.key());
    for index in 0..main.length() {
        println!("   block {index}   {}", text(&main.get(index).await?));
    }

    println!("\n2. A read-only clone that fetches a block when somebody reads it");
    let clone = Hypercore::options()
        .key(main.key()) // all it takes to read, and to believe what strangers send
        .sparse(true)
        .open(directory.path().join("clone"))
        .await?;
    let connection = task::spawn(connect(clone.clone(), main.clone()).await?);
    clone.update().await?;
    show("connected, over encrypted TCP", &clone);
    println!("   read 1    {}", text(&clone.get(1).await?));
    show("and that is what came", &clone);

    let more = (2..102).map(|index| format!("this is block {index}"));
    main.append_batch(more).await?; // a hundred blocks, one signature
    println!("   append    a hundred blocks to main");
    clone.update().await?;
    println!("   read last {}", text(&clone.head().await?));
    show("only the last one came", &clone);

    println!("\n3. Updates as they come");
    let mut events = clone.events();
    let following = clone.download(clone.length()..); // from now on, everything new
    let writer = task::spawn(async move {
        for word in ["This", "is", "live."] {
            task::sleep(Duration::from_millis(300)).await;
            main.append(word).await?;
        }
        Ok::<_, hypercore::Error>(main)
    });
    while let Some(event) = events.next().await {
        match event {
            Event::Append { length } => println!("   event     main has {length} blocks"),
            Event::Download { index, .. } => {
                let block = clone.get(index).await?;
                println!("   event     block {index} is here: {}", text(&block));
                if block == "live." {
                    break;
                }
            }
            _ => {}
        }
    }

    drop(following);
    connection.cancel().await; // a live one would go on
    writer.await?.close().await?;
    clone.close().await?;
    println!("\nThat was all. Next: the examples tcp_server and tcp_client, in two terminals.");
    Ok(())
}

/// Connects two cores over TCP. The future that comes back runs until the connection ends.
async fn connect(
    clone: Hypercore,
    main: Hypercore,
) -> Result<impl Future<Output = Result<(Ended, Ended), hypercore::Error>>, Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let outgoing = TcpStream::connect(listener.local_addr()?).await?;
    let (incoming, _) = listener.accept().await?;
    let clone = clone.replicate(Role::Initiator, ReplicateOptions::live())?;
    let main = main.replicate(Role::Responder, ReplicateOptions::live())?;
    Ok(future::try_zip(clone.run(outgoing), main.run(incoming)))
}

/// Draws which blocks are stored.
fn show(title: &str, core: &Hypercore) {
    let blocks: String = (0..core.length())
        .map(|index| if core.has(index) { '#' } else { '.' })
        .collect();
    let (stored, length) = (core.downloaded(..), core.length());
    println!("   stored    {stored} of {length} ({title})\n             {blocks}");
}

fn text(block: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(block))
}
