@echo off
"%~dp0skywire.exe" viscript %*
