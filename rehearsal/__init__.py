"""The words that every room of Rehearsal speaks: observations, actions, policies, cells, scenarios, results.

Imports numpy, msgspec and tyro only, and no other room, so that a robot PC needs no training package.
"""
