//! What tools ask of every gRPC server: is it well, and what does it serve.

use futures_util::stream;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::support::{Server, assert_refused, soon};

#[tokio::test]
async fn it_is_well() {
    let server = Server::start(&[]);
    let mut health = HealthClient::new(server.channel().await);
    for service in ["", "TaskHubSidecarService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = soon(health.check(request)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
    }
    server.stop().await;
}

#[tokio::test]
async fn it_describes_itself_unless_told_not_to() {
    let request = || {
        let message_request = Some(MessageRequest::ListServices(String::new()));
        stream::iter([ServerReflectionRequest { host: String::new(), message_request }])
    };
    let server = Server::start(&[]);
    let mut reflection = ServerReflectionClient::new(server.channel().await);
    let mut answers = soon(reflection.server_reflection_info(request())).await.unwrap().into_inner();
    let answer = soon(answers.message()).await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}");
    };
    assert!(list.service.iter().any(|service| service.name == "TaskHubSidecarService"), "{list:?}");
    server.stop().await;

    let server = Server::start(&["--reflection=false"]);
    let mut reflection = ServerReflectionClient::new(server.channel().await);
    let outcome = soon(reflection.server_reflection_info(request())).await;
    assert_refused(outcome.map(|_| ()), Code::Unimplemented, &[]);
    server.stop().await;
}
