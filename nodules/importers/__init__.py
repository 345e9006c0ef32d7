"""Importers: conversion of other formats to patch files."""
