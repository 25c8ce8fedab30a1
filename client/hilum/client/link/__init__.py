"""The site's one connection to its federation: it asks, and nobody reaches in.

start          what `hilum site start` checks first; it then supervises the loop
loop           asks for messages, has them worked on, delivers the replies; imports no torch
fleet_client   the eight calls of Flower's Fleet protocol, and no other
transport      bounds on time and bytes below HTTP
proxies        the way out: HTTPS_PROXY and NO_PROXY
identity       the papers: root certificate, certificate and key
letters        messages as objects: what is checked before anything is inflated
trainer        a warm process that does the work; trainer_process is its inside
explain        one line for whatever goes wrong
"""
