"""The demonstration: a bucket becomes labeling tasks through Airflow, all on this machine.

media        pictures and sounds that Python packages bring along, and their licences
task_files   task files in every shape, about those media
bucket       both, put into an S3 server
weed         the S3 server (SeaweedFS)
standalone   Airflow, with its home in the demonstration's
rest         Airflow's REST API: start a dag run, ask what became of it
catalog      the project and its storages
screen       what a person sees
processes    child processes that end with the demonstration
"""
